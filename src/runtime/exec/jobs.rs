//! Which stage is trained next: in the plan's order, and side by side where there are several jobs and
//! neither stage descends from the other.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::plan::{Plan, StagePlan};
use crate::runtime::exec::selection::before;
use crate::runtime::exec::{ExecError, lock};

/// The chosen stages of a run and how far each has come.
pub(super) struct Queue<'a> {
    stages: Vec<Entry<'a>>,
    states: Mutex<Vec<State>>,
    changed: Condvar,
    closed: AtomicBool,
    jobs: usize,
}

/// One of the stages.
struct Entry<'a> {
    stage: &'a StagePlan,
    /// Those it waits for.
    after: Vec<usize>,
    /// Whether it was done before this run: it takes no time.
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
}

impl<'a> Queue<'a> {
    /// The stages of `plan` that are in `selected`, for so many jobs. What is not selected need not be
    /// waited for: it is there or the stage will say that it is missing. `over` says what a run before this
    /// one has done.
    ///
    /// # Errors
    /// [`ExecError::BrokenPlan`].
    pub(super) fn new(
        plan: &'a Plan,
        selected: &BTreeSet<String>,
        jobs: usize,
        over: impl Fn(&StagePlan) -> bool,
    ) -> Result<Self, ExecError> {
        let chosen: Vec<&StagePlan> = plan.stages.iter().filter(|s| selected.contains(&s.name)).collect();
        let place = |name: &str| chosen.iter().position(|s| s.name == name);
        let mut stages = Vec::with_capacity(chosen.len());
        for &stage in &chosen {
            let mut after = Vec::new();
            let mut open = before(plan, &stage.name)?;
            while let Some(name) = open.pop() {
                match place(&name) {
                    Some(stage) => after.push(stage),
                    // A soup is made from what its ingredients leave.
                    None if plan.soups.iter().any(|s| s.name == name) => open.extend(before(plan, &name)?),
                    None => {}
                }
            }
            stages.push(Entry { stage, after, over: over(stage) });
        }
        Ok(Self {
            states: Mutex::new(vec![State::Waiting; stages.len()]),
            changed: Condvar::new(),
            closed: AtomicBool::new(false),
            jobs: jobs.clamp(1, stages.len().max(1)),
            stages,
        })
    }

    /// Whether the stage called `name` was chosen.
    pub(super) fn has(&self, name: &str) -> bool {
        self.stages.iter().any(|entry| entry.stage.name == name)
    }

    /// How many jobs can have something to do.
    pub(super) fn jobs(&self) -> usize {
        self.jobs
    }

    /// Into how many parts the memory may be cut while the stage called `name` is trained.
    pub(super) fn parts(&self, name: &str) -> usize {
        let Some(of) = self.stages.iter().position(|entry| entry.stage.name == name) else { return 1 };
        let beside =
            |other: usize| !self.stages[other].over && !self.is_after(other, of) && !self.is_after(of, other);
        (0..self.stages.len()).filter(|other| *other == of || beside(*other)).count().min(self.jobs)
    }

    /// Whether one stage has to wait for another.
    fn is_after(&self, stage: usize, other: usize) -> bool {
        let mut open = self.stages[stage].after.clone();
        let mut seen = BTreeSet::new();
        while let Some(before) = open.pop() {
            if before == other {
                return true;
            }
            if seen.insert(before) {
                open.extend(&self.stages[before].after);
            }
        }
        false
    }

    /// Whether a stage was given up: the others are to save and end.
    pub(super) fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The first stage for which everything is there, waiting for it if need be; `None` when there is
    /// nothing left to begin.
    pub(super) fn next(&self) -> Option<Claim<'_>> {
        let mut states = lock(&self.states);
        loop {
            if self.closed() {
                return None;
            }
            let can_begin = |i: usize| {
                let whole = self.stages[i].after.iter().all(|from| states[*from] == State::Done);
                states[i] == State::Waiting && whole
            };
            let ready: Vec<usize> = (0..states.len()).filter(|i| can_begin(*i)).collect();
            let running: Vec<usize> = (0..states.len()).filter(|i| states[*i] == State::Running).collect();
            match ready.first() {
                Some(&index) => {
                    let busy = running.iter().chain(&ready).filter(|i| !self.stages[**i].over).count();
                    let share = busy.clamp(1, self.jobs);
                    states[index] = State::Running;
                    return Some(Claim { queue: self, index, stage: self.stages[index].stage, share });
                }
                None if running.is_empty() => return None,
                None => states = self.changed.wait(states).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn set(&self, index: usize, state: State) {
        lock(&self.states)[index] = state;
        self.changed.notify_all();
    }
}

/// A stage that one job does. Dropped before [`Claim::done`], as by an error or a panic, it closes the
/// queue.
pub(super) struct Claim<'q> {
    queue: &'q Queue<'q>,
    index: usize,
    pub(super) stage: &'q StagePlan,
    /// Into how many parts threads and memory go: the stages that can run now.
    pub(super) share: usize,
}

impl Claim<'_> {
    /// The stage has come to its end.
    pub(super) fn done(self) {
        self.queue.set(self.index, State::Done);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if lock(&self.queue.states)[self.index] != State::Done {
            self.queue.closed.store(true, Ordering::Relaxed);
            self.queue.set(self.index, State::Waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::sema::{Options, check};
    use crate::source::MemoryFiles;

    /// A trunk, two seeds of a branch, their soup, a stage after it, and one that only needs the trunk.
    fn graph() -> Plan {
        let text = "lints {\n  missing_files = allow\n}\nmodel base {\n  init    = llama3_8b\n  context = 4Ki\n}\n\
                    source web {\n  kind = web\n}\n\
                    stage trunk {\n  from = base\n  tokens = 1B\n  batch = 1024 seqs\n  mix = web\n  data_seed = 1\n\
                    \x20 lr = 0 then linear(to: 3e-4, over: 100M) then hold\n}\n\
                    stage branch[seed in [2, 3]] {\n  from = trunk\n  tokens = 1B\n  data_seed = seed\n\
                    \x20 lr = inherit then linear(to: 0)\n}\n\
                    soup mean = average(branch)\n\
                    stage end {\n  from = mean\n  tokens = 1B\n  data_seed = 4\n  mix = web\n  batch = 1024 seqs\n\
                    \x20 lr = 0 then linear(to: 1e-5, over: 100M) then linear(to: 0)\n}\n\
                    stage other {\n  from = trunk\n  tokens = 1B\n  data_seed = 5\n  lr = inherit then linear(to: 0)\n}\n";
        let mut files = MemoryFiles::new();
        let file = files.add("test.curriculum", text.to_string());
        let (curriculum, found) = check(&mut files, file, &Options::default());
        let messages: Vec<&str> = found.iter().map(|d| d.message.as_str()).collect();
        plan::build(&curriculum.unwrap_or_else(|| panic!("{messages:?}")))
    }

    fn queue<'a>(plan: &'a Plan, left_out: &[&str], jobs: usize) -> Queue<'a> {
        let all = plan.stages.iter().map(|s| &s.name).chain(plan.soups.iter().map(|s| &s.name));
        let selected = all.filter(|name| !left_out.contains(&name.as_str())).cloned().collect();
        Queue::new(plan, &selected, jobs, |_| false).unwrap()
    }

    fn seen(claim: &Claim<'_>) -> (String, usize) {
        (claim.stage.name.clone(), claim.share)
    }

    #[test]
    fn memory_is_cut_for_those_that_can_train_at_the_same_time() {
        let plan = graph();
        for (jobs, expected) in [(3, [1, 3, 3, 2, 3]), (2, [1, 2, 2, 2, 2]), (1, [1; 5])] {
            let queue = queue(&plan, &[], jobs);
            let parts = ["trunk", "branch[2]", "branch[3]", "end", "other"].map(|stage| queue.parts(stage));
            assert_eq!(parts, expected, "{jobs} jobs");
        }
    }

    #[test]
    fn one_job_keeps_the_order_of_the_plan() {
        let plan = graph();
        let queue = queue(&plan, &[], 1);
        let mut order = Vec::new();
        while let Some(claim) = queue.next() {
            assert_eq!(claim.share, 1);
            order.push(claim.stage.name.clone());
            claim.done();
        }
        assert_eq!(order, plan.stages.iter().map(|s| s.name.clone()).collect::<Vec<_>>());
        assert_eq!(order.len(), 5);
    }

    #[test]
    fn stages_wait_for_what_they_start_from_and_share_with_those_that_can_run() {
        let plan = graph();
        let queue = queue(&plan, &[], 8);
        let trunk = queue.next().unwrap();
        assert_eq!(seen(&trunk), ("trunk".into(), 1));
        trunk.done();
        let three: Vec<Claim<'_>> = (0..3).map(|_| queue.next().unwrap()).collect();
        assert_eq!(
            three.iter().map(seen).collect::<Vec<_>>(),
            [("branch[2]".into(), 3), ("branch[3]".into(), 3), ("other".into(), 3)]
        );
        std::thread::scope(|scope| {
            let end = scope.spawn(|| queue.next().map(|claim| seen(&claim)));
            for claim in three {
                claim.done();
            }
            assert_eq!(end.join().unwrap(), Some(("end".into(), 1)));
        });
    }

    #[test]
    fn no_more_parts_than_jobs_and_no_more_jobs_than_stages() {
        let plan = graph();
        let queue_of_two = queue(&plan, &["trunk"], 2);
        let [a, b] = [queue_of_two.next().unwrap(), queue_of_two.next().unwrap()];
        assert_eq!([seen(&a), seen(&b)], [("branch[2]".into(), 2), ("branch[3]".into(), 2)]);
        assert_eq!(queue(&plan, &[], 100).jobs(), 5);
    }

    #[test]
    fn what_a_run_before_has_done_takes_no_share() {
        let plan = graph();
        let selected = plan.stages.iter().map(|s| s.name.clone()).collect();
        let queue = Queue::new(&plan, &selected, 2, |stage| stage.name != "branch[3]").unwrap();
        queue.next().unwrap().done();
        let [over, left] = [queue.next().unwrap(), queue.next().unwrap()];
        assert_eq!([seen(&over), seen(&left)], [("branch[2]".into(), 1), ("branch[3]".into(), 1)]);
    }

    #[test]
    fn a_stage_that_is_given_up_ends_the_others() {
        let plan = graph();
        let queue = queue(&plan, &["trunk"], 3);
        let (given_up, other) = (queue.next().unwrap(), queue.next().unwrap());
        assert!(!queue.closed());
        drop(given_up);
        assert!(queue.closed() && queue.next().is_none());
        other.done();
        assert!(queue.next().is_none());
    }
}
