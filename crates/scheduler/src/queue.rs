//! Jobs with waiting tasks, in the order in which they get their turns.
//!
//! Jobs that the same workers can serve form a class; within a class there is a line for each priority, ordered by
//! turns. A claim looks only at the heads of the lines of the classes that its worker can serve, so its cost does not
//! grow with the number of jobs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use model::{JobId, JobKind, Requirements};

/// Jobs that the same workers can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClassId(u64);

/// Where a waiting job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) class: ClassId,
    /// 1 to 9.
    pub(crate) level: u8,
    pub(crate) turn: u64,
}

/// How well a worker suits a job's affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Suits {
    /// Another worker has what it would rather have.
    Elsewhere,
    /// Nobody has, or it does not care.
    Anywhere,
    /// This one has, or it was passed over often enough.
    Here,
}

/// Which of several jobs goes first: the greatest. The order of the fields is the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Priority with what waiting has added.
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
    lines: [BTreeMap<u64, JobId>; LEVELS],
}

/// The lines of all classes.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    classes: BTreeMap<ClassId, Class>,
    ids: HashMap<(JobKind, Requirements), ClassId>,
    last_class: u64,
}

impl Queue {
    /// The class of a new job, and whether it is a new class.
    pub(crate) fn enter(&mut self, kind: JobKind, requires: &Requirements) -> (ClassId, bool) {
        if let Some(id) = self.ids.get(&(kind, requires.clone())) {
            self.classes.get_mut(id).expect("a class that has an id is there").jobs += 1;
            return (*id, false);
        }
        self.last_class += 1;
        let id = ClassId(self.last_class);
        self.ids.insert((kind, requires.clone()), id);
        self.classes.insert(id, Class { kind, requires: requires.clone(), jobs: 1, lines: Default::default() });
        (id, true)
    }

    /// One of the class's jobs is over; tells whether it was the last.
    pub(crate) fn leave(&mut self, id: ClassId) -> bool {
        let class = self.classes.get_mut(&id).expect("a job's class is there");
        class.jobs -= 1;
        if class.jobs > 0 {
            return false;
        }
        let class = self.classes.remove(&id).expect("it was just there");
        self.ids.remove(&(class.kind, class.requires));
        true
    }

    pub(crate) fn classes(&self) -> impl Iterator<Item = (ClassId, JobKind, &Requirements)> {
        self.classes.iter().map(|(id, class)| (*id, class.kind, &class.requires))
    }

    pub(crate) fn insert(&mut self, place: Place, job: JobId) {
        self.line_mut(place).insert(place.turn, job);
    }

    pub(crate) fn remove(&mut self, place: Place) {
        self.line_mut(place).remove(&place.turn);
    }

    /// The classes with jobs that wait.
    pub(crate) fn waiting_classes(&self) -> impl Iterator<Item = ClassId> {
        let has_jobs = |class: &Class| class.lines.iter().any(|line| !line.is_empty());
        self.classes.iter().filter(move |(_, class)| has_jobs(class)).map(|(id, _)| *id)
    }

    /// The lines of a class, each with its jobs in the order of their turns.
    pub(crate) fn lines(&self, class: ClassId) -> impl Iterator<Item = impl Iterator<Item = (u64, JobId)>> {
        let lines = self.classes.get(&class).into_iter().flat_map(|class| &class.lines);
        lines.map(|line| line.iter().map(|(turn, job)| (*turn, *job)))
    }

    /// Every waiting job.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.classes.values().flat_map(|class| &class.lines).flat_map(|line| line.values().copied())
    }

    fn line_mut(&mut self, place: Place) -> &mut BTreeMap<u64, JobId> {
        let class = self.classes.get_mut(&place.class).expect("a job's class is there");
        &mut class.lines[usize::from(place.level) - 1]
    }
}
