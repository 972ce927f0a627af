//! Sequences of launches that come again are captured once and replayed as a graph.
//!
//! Between [`begin`](Device::begin) and [`end`](Device::end) launches are written down instead of started.
//! What needs them done (a copy to or from the host, memory given back) ends a sequence; a sequence seen
//! for the second time, to the bit of every argument, becomes a graph of the device, and from then on is
//! one launch. What never comes again is run as it came. Knows nothing of what the kernels compute.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::device::{Argument, Device, DeviceFailure, Launch, Matrix, Operation, TensorMap};

/// Sequences that are remembered; the one unused for longest makes room.
const REMEMBERED: usize = 16;

#[derive(Debug)]
struct Sequence {
    operations: Vec<Operation>,
    /// The device's graph, from the second time on.
    graph: Option<u64>,
    /// When it was last run.
    last: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Written down since the last sequence ended; `None` outside of a recording.
    open: Option<Vec<Operation>>,
    sequences: Vec<Sequence>,
    runs: u64,
    replays: u64,
    /// The device has no graphs, or could not make one.
    refused: bool,
    /// Of what was started where nobody could be told; whoever asks next is.
    failure: Option<DeviceFailure>,
}

impl State {
    /// Tell of a failure that nobody was told of. What was written down since is not started.
    fn fail(&mut self) -> Result<(), DeviceFailure> {
        let Some(failure) = self.failure.take() else { return Ok(()) };
        if let Some(open) = &mut self.open {
            open.clear();
        }
        Err(failure)
    }
}

/// A device that replays what comes again.
#[derive(Debug)]
pub struct Recorder {
    device: Arc<dyn Device>,
    state: Mutex<State>,
}

impl Recorder {
    /// Over a device.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Recorder { device, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sequences that were replayed so far.
    #[cfg(test)]
    pub(super) fn replays(&self) -> u64 {
        self.state().replays
    }

    /// Starts what was written down.
    fn flush(&self) -> Result<(), DeviceFailure> {
        let mut state = self.state();
        state.fail()?;
        let Some(open) = state.open.as_mut() else { return Ok(()) };
        let operations = std::mem::take(open);
        self.run(&mut state, operations)
    }

    fn run(&self, state: &mut State, mut operations: Vec<Operation>) -> Result<(), DeviceFailure> {
        // A graph of one launch saves nothing.
        if operations.len() < 2 || state.refused {
            return start(&*self.device, &mut operations);
        }
        state.runs += 1;
        let now = state.runs;
        if let Some(known) = state.sequences.iter_mut().find(|s| s.operations == operations) {
            known.last = now;
            if known.graph.is_none() {
                // Capturing starts nothing: where it fails, as for want of memory, what was to be a graph is
                // started as it came. What is wrong with an operation itself is met there again.
                known.graph = self.device.capture(&mut operations).unwrap_or_default();
                state.refused = known.graph.is_none();
            }
            return match known.graph {
                Some(graph) => {
                    state.replays += 1;
                    self.device.replay(graph)
                }
                None => start(&*self.device, &mut operations),
            };
        }
        start(&*self.device, &mut operations)?;
        if state.sequences.len() == REMEMBERED
            && let Some(oldest) = (0..REMEMBERED).min_by_key(|i| state.sequences[*i].last)
        {
            let dropped = state.sequences.swap_remove(oldest);
            if let Some(graph) = dropped.graph {
                self.device.forget(graph);
            }
        }
        state.sequences.push(Sequence { operations, graph: None, last: now });
        Ok(())
    }

    fn note(&self, operation: Operation) -> Result<(), DeviceFailure> {
        let mut state = self.state();
        state.fail()?;
        if let Some(open) = &mut state.open {
            open.push(operation);
            return Ok(());
        }
        drop(state);
        start(&*self.device, &mut [operation])
    }
}

/// One after the other.
pub(super) fn start(device: &dyn Device, operations: &mut [Operation]) -> Result<(), DeviceFailure> {
    operations.iter_mut().try_for_each(|operation| match operation {
        Operation::Launch(launch, arguments) => device.launch(*launch, arguments),
        Operation::Clear { at, bytes } => device.clear(*at, *bytes),
    })
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for graph in state.sequences.iter().filter_map(|s| s.graph) {
            self.device.forget(graph);
        }
    }
}

impl Device for Recorder {
    fn describe(&self) -> String {
        self.device.describe()
    }

    fn multiprocessors(&self) -> u32 {
        self.device.multiprocessors()
    }

    fn hopper(&self) -> bool {
        self.device.hopper()
    }

    fn shared_limit(&self) -> usize {
        self.device.shared_limit()
    }

    fn free_bytes(&self) -> Result<u64, DeviceFailure> {
        self.device.free_bytes()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceFailure> {
        self.device.allocate(bytes)
    }

    fn release(&self, at: u64) {
        // Launches that use the memory may still be written down only.
        if let Err(failure) = self.flush() {
            self.state().failure = Some(failure);
        }
        self.device.release(at);
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceFailure> {
        self.flush()?;
        self.device.upload(to, from)
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), DeviceFailure> {
        self.flush()?;
        self.device.download(from, to)
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<(), DeviceFailure> {
        self.note(Operation::Clear { at, bytes })
    }

    fn launch(&self, launch: Launch, arguments: &mut [Argument]) -> Result<(), DeviceFailure> {
        self.note(Operation::Launch(launch, arguments.to_vec()))
    }

    fn tensor_map(&self, matrix: Matrix) -> Result<TensorMap, DeviceFailure> {
        self.device.tensor_map(matrix)
    }

    fn wait(&self) -> Result<(), DeviceFailure> {
        self.flush()?;
        self.device.wait()
    }

    fn begin(&self) -> Result<(), DeviceFailure> {
        self.flush()?;
        self.state().open = Some(Vec::new());
        Ok(())
    }

    fn end(&self) -> Result<(), DeviceFailure> {
        let result = self.flush();
        self.state().open = None;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes down what it is asked for.
    #[derive(Debug, Default)]
    struct Log {
        said: Mutex<Vec<String>>,
        /// What begins so fails.
        broken: Option<&'static str>,
    }

    impl Log {
        fn broken(what: &'static str) -> Arc<Self> {
            Arc::new(Log { broken: Some(what), ..Log::default() })
        }

        fn say(&self, text: impl Into<String>) -> Result<(), DeviceFailure> {
            let text = text.into();
            if self.broken.is_some_and(|what| text.starts_with(what)) {
                return Err(DeviceFailure { what: text, reason: "broken".into() });
            }
            self.said.lock().unwrap().push(text);
            Ok(())
        }

        fn drain(&self) -> Vec<String> {
            self.said.lock().unwrap().drain(..).collect()
        }
    }

    impl Device for Log {
        fn describe(&self) -> String {
            String::new()
        }
        fn multiprocessors(&self) -> u32 {
            1
        }
        fn hopper(&self) -> bool {
            false
        }
        fn shared_limit(&self) -> usize {
            0
        }
        fn free_bytes(&self) -> Result<u64, DeviceFailure> {
            Ok(0)
        }
        fn allocate(&self, _: usize) -> Result<u64, DeviceFailure> {
            Ok(0)
        }
        fn release(&self, at: u64) {
            self.say(format!("release {at}")).unwrap();
        }
        fn upload(&self, to: u64, _: &[u8]) -> Result<(), DeviceFailure> {
            self.say(format!("upload {to}"))
        }
        fn download(&self, from: u64, _: &mut [u8]) -> Result<(), DeviceFailure> {
            self.say(format!("download {from}"))
        }
        fn clear(&self, at: u64, _: usize) -> Result<(), DeviceFailure> {
            self.say(format!("clear {at}"))
        }
        fn launch(&self, launch: Launch, arguments: &mut [Argument]) -> Result<(), DeviceFailure> {
            self.say(format!("{} {arguments:?}", launch.kernel))
        }
        fn tensor_map(&self, _: Matrix) -> Result<TensorMap, DeviceFailure> {
            Ok(TensorMap([0; 128]))
        }
        fn wait(&self) -> Result<(), DeviceFailure> {
            Ok(())
        }
        fn capture(&self, operations: &mut [Operation]) -> Result<Option<u64>, DeviceFailure> {
            self.say(format!("capture {}", operations.len()))?;
            Ok(Some(7))
        }
        fn replay(&self, graph: u64) -> Result<(), DeviceFailure> {
            self.say(format!("replay {graph}"))
        }
        fn forget(&self, graph: u64) {
            self.say(format!("forget {graph}")).unwrap();
        }
    }

    fn step(device: &dyn Device, scale: f32) {
        let launch = |kernel| Launch { kernel, grid: [1, 1, 1], threads: 32, shared: 0 };
        device.begin().unwrap();
        device.clear(1, 4).unwrap();
        device.launch(launch("a"), &mut [Argument::Int(1)]).unwrap();
        device.upload(2, &[0]).unwrap();
        device.launch(launch("b"), &mut [Argument::Float(scale)]).unwrap();
        device.launch(launch("c"), &mut []).unwrap();
        device.end().unwrap();
        device.launch(launch("d"), &mut []).unwrap();
    }

    #[test]
    fn what_comes_again_is_replayed() {
        let log = Arc::new(Log::default());
        let recorder = Recorder::new(Arc::clone(&log) as Arc<dyn Device>);
        let said = || log.drain();
        step(&recorder, 1.0);
        assert_eq!(said(), ["clear 1", "a [Int(1)]", "upload 2", "b [Float(1.0)]", "c []", "d []"]);
        step(&recorder, 1.0);
        assert_eq!(said(), ["capture 2", "replay 7", "upload 2", "capture 2", "replay 7", "d []"]);
        step(&recorder, 1.0);
        assert_eq!(said(), ["replay 7", "upload 2", "replay 7", "d []"]);
        // Another argument is another sequence.
        step(&recorder, 0.5);
        assert_eq!(said(), ["replay 7", "upload 2", "b [Float(0.5)]", "c []", "d []"]);
        drop(recorder);
        assert_eq!(said(), ["forget 7", "forget 7"]);
    }

    #[test]
    fn memory_is_given_back_after_its_launches() {
        let log = Arc::new(Log::default());
        let recorder = Recorder::new(Arc::clone(&log) as Arc<dyn Device>);
        recorder.begin().unwrap();
        recorder.clear(3, 4).unwrap();
        recorder.release(3);
        recorder.end().unwrap();
        assert_eq!(log.drain(), ["clear 3", "release 3"]);
    }

    /// Memory goes back without an answer, so the next to get one hears of what could not be started.
    #[test]
    fn a_failure_while_memory_is_given_back_is_told_later() {
        for outside in [false, true] {
            let log = Log::broken("clear");
            let recorder = Recorder::new(Arc::clone(&log) as Arc<dyn Device>);
            recorder.begin().unwrap();
            recorder.clear(3, 4).unwrap();
            recorder.release(3);
            if outside {
                recorder.end().unwrap_err();
                recorder.wait().unwrap();
            } else {
                let launch = Launch { kernel: "a", grid: [1, 1, 1], threads: 32, shared: 0 };
                let failure = recorder.launch(launch, &mut []).unwrap_err();
                assert_eq!(failure.what, "clear 3");
                // Once.
                recorder.launch(launch, &mut []).unwrap();
                recorder.end().unwrap();
            }
        }
    }

    #[test]
    fn what_cannot_be_captured_is_started_as_it_came() {
        let log = Log::broken("capture");
        let recorder = Recorder::new(Arc::clone(&log) as Arc<dyn Device>);
        let as_it_came = ["clear 1", "a [Int(1)]", "upload 2", "b [Float(1.0)]", "c []", "d []"];
        for _ in 0..3 {
            step(&recorder, 1.0);
            assert_eq!(log.drain(), as_it_came);
        }
        assert_eq!(recorder.replays(), 0);
    }

    #[test]
    fn old_sequences_make_room() {
        let log = Arc::new(Log::default());
        let recorder = Recorder::new(Arc::clone(&log) as Arc<dyn Device>);
        for i in 0..40 {
            step(&recorder, i as f32);
        }
        assert!(recorder.state().sequences.len() <= REMEMBERED);
        // The first half of the step came every time.
        assert_eq!(recorder.replays(), 39);
    }
}
