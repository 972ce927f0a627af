//! A child under supervision: its output kept, signals passed on with a time to obey them, nothing of it
//! left behind.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{LaunchError, open_console};

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With 0.
    Done,
    /// Otherwise: how, and the last lines it printed.
    Failed(String, String),
    /// After it was asked to.
    Stopped,
}

/// Between two looks at the child and its logs.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines of a failed child that are shown.
const SHOWN: usize = 25;
/// Names the children of one launch in their environment: torchrun puts its workers into sessions of
/// their own, where no process group reaches them.
const MARK: &str = "MIDC_LAUNCH";

/// A child that runs.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    console: PathBuf,
    /// Where in the console log this attempt begins.
    begin: u64,
    mark: String,
}

impl Child {
    /// Start `command` in `dir`. `lock` becomes its standard input, and that of its own children, which
    /// holds the run directory's lock for as long as one of them lives, whatever becomes of this process.
    pub(super) fn start(
        mut command: Command,
        dir: &Path,
        console: &Path,
        lock: File,
    ) -> Result<Self, LaunchError> {
        let (out, begin) = open_console(console, &command)?;
        let err = out.try_clone().map_err(LaunchError::io("open", console))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mark = format!("{}-{}", std::process::id(), now.as_nanos());
        command.current_dir(dir).env(MARK, &mark).stdin(lock).stdout(out).stderr(err);
        // ctrl-C in a terminal goes to the whole foreground group; the child is to hear of it from here.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let process = command.spawn().map_err(|source| LaunchError::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        Ok(Self { process, console: console.to_owned(), begin, mark })
    }

    /// Wait for the end, doing `each` in between. A signal is passed on to the child, which has `grace`
    /// to end; the next one, or the end of that time, kills it. That the terminal is gone is told twice, by the
    /// system and by the shell, and insists on nothing.
    pub(super) fn supervise(
        mut self,
        signal: &AtomicUsize,
        grace: Duration,
        each: &mut dyn FnMut() -> Result<(), LaunchError>,
    ) -> Result<Ended, LaunchError> {
        let mut deadline: Option<Instant> = None;
        let status = loop {
            let waited =
                self.process.try_wait().map_err(LaunchError::io("wait for the child of", &self.console))?;
            if let Some(status) = waited {
                break status;
            }
            each()?;
            let number = signal.swap(0, Ordering::Relaxed);
            match deadline {
                None if number != 0 => {
                    self.pass_on(number);
                    deadline = Some(Instant::now() + grace);
                }
                Some(at) if insists(number) || Instant::now() >= at => self.kill(),
                _ => {}
            }
            std::thread::sleep(PAUSE);
        };
        // A launcher that was killed from outside leaves its workers.
        self.kill_marked();
        if deadline.is_some() || signal.swap(0, Ordering::Relaxed) != 0 {
            return Ok(Ended::Stopped);
        }
        if status.success() {
            return Ok(Ended::Done);
        }
        Ok(Ended::Failed(describe(status), tail(&self.console, self.begin)))
    }

    #[cfg(unix)]
    fn pass_on(&mut self, number: usize) {
        use rustix::process::{Pid, Signal, kill_process};
        let signal = if number == signal_hook::consts::SIGINT as usize { Signal::INT } else { Signal::TERM };
        if let Some(pid) = Pid::from_raw(self.process.id().cast_signed()) {
            // Gone already: the next look sees it.
            let _ = kill_process(pid, signal);
        }
    }

    #[cfg(not(unix))]
    fn pass_on(&mut self, _: usize) {
        let _ = self.process.kill();
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        self.kill_marked();
    }

    /// Kill what still carries this launch's mark.
    fn kill_marked(&self) {
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{Pid, Signal, kill_process};
            let wanted = format!("{MARK}={}", self.mark);
            for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
                    continue;
                };
                // Others' processes cannot be read and are not ours.
                let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
                if environment.split(|b| *b == 0).any(|variable| variable == wanted.as_bytes())
                    && let Some(pid) = Pid::from_raw(pid)
                {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
        }
    }
}

impl Drop for Child {
    /// Also when following the logs failed: nothing trains on unsupervised.
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.process.wait();
        }
    }
}

/// Whether a second signal is somebody's impatience.
fn insists(number: usize) -> bool {
    #[cfg(unix)]
    if number == signal_hook::consts::SIGHUP as usize {
        return false;
    }
    number != 0
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("signal {signal}");
    }
    status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"))
}

/// The last lines an attempt printed. Those torchrun adds when a worker failed say only that, so they
/// are left out where there are others.
fn tail(console: &Path, begin: u64) -> String {
    let Ok(mut file) = File::open(console) else { return String::new() };
    if file.seek(SeekFrom::Start(begin)).is_err() {
        return String::new();
    }
    let mut lines: VecDeque<String> = VecDeque::with_capacity(SHOWN);
    for line in BufReader::new(file).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("failed (exitcode: ") && lines.len() > 1 {
            break;
        }
        if lines.len() == SHOWN {
            lines.pop_front();
        }
        lines.push_back(line);
    }
    Vec::from(lines).join("\n")
}

/// Standard input of nothing, for children that hold no lock.
pub(super) fn probe(command: &mut Command) -> std::io::Result<std::process::Output> {
    command.stdin(Stdio::null()).output()
}
