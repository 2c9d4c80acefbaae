//! Jobs with open tasks, in the order in which they get their turns.
//!
//! Jobs that the same workers can serve form a class; within a class there is a line for each priority, ordered by
//! turns. A claim looks only at the heads of the lines of the classes that its worker can serve, so its cost does not
//! grow with the number of jobs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::{JobId, JobKind, Priority, Requirements};

/// Unused classes that are kept: a job often comes again with the same requirements, and adding a class costs a comparison with
/// every ability.
const MAX_UNUSED_CLASSES: usize = 256;

/// Jobs of a line that take turns with each other before others start, so that some of very many jobs end early.
pub(crate) const WINDOW: usize = 8;

/// Interval, in turns of a line, at which a turn goes to the job with the oldest turn, in the window or not, so that a small
/// job does not wait until long jobs have ended.
const OLDEST_EVERY: u64 = 4;

/// Jobs that the same workers can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClassId(u64);

/// The place of a waiting job in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueuePlace {
    pub(crate) class: ClassId,
    /// Priority, 1 to 9.
    pub(crate) level: u8,
    pub(crate) turn: u64,
}

/// Degree to which a worker suits a job's affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Suits {
    /// Another worker has the preferred labels or data.
    Elsewhere,
    /// No worker has them, or the job prefers nothing.
    Anywhere,
    /// This worker has them, or the job was passed over often enough.
    Here,
}

/// Rank of a job: the job with the greatest rank goes first. The order of the fields is the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Priority, raised by the time of waiting.
    pub(crate) level: u8,
    pub(crate) suits: Suits,
    pub(crate) turn: Reverse<u64>,
}

const LEVELS: usize = 9;

#[derive(Debug)]
struct Class {
    kind: JobKind,
    requires: Requirements,
    jobs: usize,
    /// Moment at which the class lost its last job, counted in such losses.
    unused_since: u64,
    /// Tasks that could be leased now if there were slots, by the priorities of their jobs. The sums wrap as those of the figures
    /// do.
    open_tasks: [u64; LEVELS],
    /// Whether an active worker can serve the class.
    is_served: bool,
    waiting_jobs: usize,
    lines: [Line; LEVELS],
}

/// The waiting jobs of one class and priority.
#[derive(Debug, Default)]
pub(crate) struct Line {
    window: BTreeMap<u64, JobId>,
    rest: BTreeMap<u64, JobId>,
    turns: u64,
}

/// The lines of all classes.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    classes: BTreeMap<ClassId, Class>,
    ids: HashMap<(JobKind, Requirements), ClassId>,
    /// The classes with jobs that wait.
    waiting: BTreeSet<ClassId>,
    /// Those of them that an active worker can serve.
    runnable: BTreeSet<ClassId>,
    /// Jobs that wait, by level.
    waiting_jobs: [usize; LEVELS],
    unused: BTreeMap<u64, ClassId>,
    losses: u64,
    last_class: u64,
}

impl Line {
    /// The jobs that take turns now, and the jobs that go only if none of the first has anything for a worker.
    pub(crate) fn turns(&self) -> (impl Iterator<Item = (u64, JobId)>, impl Iterator<Item = (u64, JobId)>) {
        let all_at_once = self.turns % OLDEST_EVERY == OLDEST_EVERY - 1;
        let rest = || self.rest.iter().map(|(turn, job)| (*turn, *job));
        let first = rest().take(usize::from(all_at_once)).chain(self.window.iter().map(|(turn, job)| (*turn, *job)));
        (first, rest())
    }

    /// The job outside the window that has waited for longest.
    pub(crate) fn outside(&self) -> Option<(u64, JobId)> {
        self.rest.first_key_value().map(|(turn, job)| (*turn, *job))
    }

    /// The job whose turn is the oldest.
    pub(crate) fn oldest(&self) -> Option<(u64, JobId)> {
        let first = self.window.first_key_value().map(|(turn, job)| (*turn, *job));
        first.into_iter().chain(self.outside()).min()
    }

    fn len(&self) -> usize {
        self.window.len() + self.rest.len()
    }

    fn fill_window(&mut self) {
        while self.window.len() < WINDOW
            && let Some((turn, job)) = self.rest.pop_first()
        {
            self.window.insert(turn, job);
        }
    }
}

impl Queue {
    /// The class of a new job, and whether it is a new class.
    pub(crate) fn enter(&mut self, kind: JobKind, requires: &Requirements) -> (ClassId, bool) {
        if let Some(id) = self.ids.get(&(kind, requires.clone())) {
            let class = self.classes.get_mut(id).expect("a class that has an id is there");
            if class.jobs == 0 {
                self.unused.remove(&class.unused_since);
            }
            class.jobs += 1;
            return (*id, false);
        }
        self.last_class += 1;
        let id = ClassId(self.last_class);
        self.ids.insert((kind, requires.clone()), id);
        let class = Class {
            kind,
            requires: requires.clone(),
            jobs: 1,
            unused_since: 0,
            open_tasks: [0; LEVELS],
            is_served: false,
            waiting_jobs: 0,
            lines: Default::default(),
        };
        self.classes.insert(id, class);
        (id, true)
    }

    /// Counts one job less in the class. Returns the class that was unused for longest if there are too many.
    pub(crate) fn leave(&mut self, id: ClassId) -> Option<ClassId> {
        let class = self.classes.get_mut(&id).expect("a job's class is there");
        class.jobs -= 1;
        if class.jobs > 0 {
            return None;
        }
        self.losses += 1;
        class.unused_since = self.losses;
        self.unused.insert(self.losses, id);
        if self.unused.len() <= MAX_UNUSED_CLASSES {
            return None;
        }
        let (_, oldest) = self.unused.pop_first()?;
        let class = self.classes.remove(&oldest)?;
        self.ids.remove(&(class.kind, class.requires));
        Some(oldest)
    }

    pub(crate) fn classes(&self) -> impl Iterator<Item = (ClassId, JobKind, &Requirements)> {
        self.classes.iter().map(|(id, class)| (*id, class.kind, &class.requires))
    }

    pub(crate) fn kind(&self, id: ClassId) -> JobKind {
        self.classes[&id].kind
    }

    /// Puts a job in its line. A job that was just removed from its window comes back to it.
    pub(crate) fn insert(&mut self, place: QueuePlace, job: JobId) {
        let line = self.line_mut(place);
        let into = if line.window.len() < WINDOW { &mut line.window } else { &mut line.rest };
        into.insert(place.turn, job);
        self.waiting_jobs[usize::from(place.level) - 1] += 1;
        let class = self.class_mut(place.class);
        class.waiting_jobs += 1;
        if class.waiting_jobs == 1 {
            let is_served = class.is_served;
            self.waiting.insert(place.class);
            self.runnable.extend(is_served.then_some(place.class));
        }
    }

    /// Removes a job from its line; [`Self::settle`] gives its place in the window to the next one.
    pub(crate) fn remove(&mut self, place: QueuePlace) {
        let line = self.line_mut(place);
        if line.window.remove(&place.turn).is_none() {
            line.rest.remove(&place.turn);
        }
        self.waiting_jobs[usize::from(place.level) - 1] -= 1;
        let class = self.class_mut(place.class);
        class.waiting_jobs -= 1;
        if class.waiting_jobs == 0 {
            self.waiting.remove(&place.class);
            self.runnable.remove(&place.class);
        }
    }

    /// Fills the window of a line that a job was removed from.
    pub(crate) fn settle(&mut self, place: QueuePlace) {
        self.line_mut(place).fill_window();
    }

    /// Notes that a job got the turn of its line.
    pub(crate) fn count_turn(&mut self, place: QueuePlace) {
        let line = self.line_mut(place);
        line.turns = line.turns.wrapping_add(1);
    }

    /// The classes with jobs that wait.
    pub(crate) fn waiting_classes(&self) -> &BTreeSet<ClassId> {
        &self.waiting
    }

    /// The classes with jobs that wait and an active worker that can serve them.
    pub(crate) fn runnable_classes(&self) -> &BTreeSet<ClassId> {
        &self.runnable
    }

    /// Notes whether an active worker can serve a class.
    pub(crate) fn set_served(&mut self, id: ClassId, is_served: bool) {
        self.class_mut(id).is_served = is_served;
        if is_served && self.waiting.contains(&id) {
            self.runnable.insert(id);
        } else {
            self.runnable.remove(&id);
        }
    }

    /// The lines of a class that have jobs, with their levels.
    pub(crate) fn lines(&self, class: ClassId) -> impl Iterator<Item = (u8, &Line)> {
        let lines = self.classes.get(&class).into_iter().flat_map(|class| &class.lines);
        (1..).zip(lines).filter(|(_, line)| line.len() > 0)
    }

    /// Number of waiting jobs of a level and above.
    pub(crate) fn jobs_from(&self, level: u8) -> usize {
        self.waiting_jobs[usize::from(level) - 1..].iter().sum()
    }

    /// Number of the class's tasks that could be leased now.
    pub(crate) fn open_tasks(&self, id: ClassId) -> u128 {
        self.open_by_priority(id).iter().copied().map(u128::from).sum()
    }

    /// Open tasks of the class by the priorities 1 to 9 of their jobs.
    pub(crate) fn open_by_priority(&self, id: ClassId) -> [u64; LEVELS] {
        self.classes.get(&id).map_or([0; LEVELS], |class| class.open_tasks)
    }

    /// Notes that a job of the class had `before` open tasks and has `after` now.
    pub(crate) fn recount(&mut self, id: ClassId, priority: Priority, before: u64, after: u64) {
        let open = &mut self.class_mut(id).open_tasks[usize::from(priority.get()) - 1];
        *open = open.wrapping_sub(before).wrapping_add(after);
    }

    fn class_mut(&mut self, id: ClassId) -> &mut Class {
        self.classes.get_mut(&id).expect("a job's class is there")
    }

    fn line_mut(&mut self, place: QueuePlace) -> &mut Line {
        &mut self.class_mut(place.class).lines[usize::from(place.level) - 1]
    }
}

#[cfg(any(test, feature = "invariants"))]
impl Queue {
    /// Every waiting job.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobId> {
        let lines = self.classes.values().flat_map(|class| &class.lines);
        lines.flat_map(|line| line.window.values().chain(line.rest.values()).copied())
    }

    /// Checks that the indexes agree with the lines and with the classes that active workers can serve.
    pub(crate) fn check(&self, is_served: impl Fn(ClassId) -> bool) {
        for (id, class) in &self.classes {
            let waiting: usize = class.lines.iter().map(Line::len).sum();
            assert_eq!(class.waiting_jobs, waiting);
            assert_eq!(self.waiting.contains(id), waiting > 0);
            assert_eq!(class.is_served, is_served(*id));
            assert_eq!(self.runnable.contains(id), waiting > 0 && class.is_served);
            assert_eq!(self.unused.get(&class.unused_since) == Some(id), class.jobs == 0);
            for line in &class.lines {
                assert!(line.rest.is_empty() || line.window.len() == WINDOW, "a place in a window is free");
            }
        }
        for (level, waiting) in self.waiting_jobs.iter().enumerate() {
            assert_eq!(self.classes.values().map(|class| class.lines[level].len()).sum::<usize>(), *waiting);
        }
        assert!(self.unused.len() <= MAX_UNUSED_CLASSES);
    }
}
