//! Recordings, and the crashes that they are put through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Mutex;

use tempfile::TempDir;

use crate::content::{COPY, Image};
use crate::disk::{Loss, Metadata};
use crate::history::History;
use crate::judge::{Opened, judge};
use crate::proc::Random;
use crate::recorder::{Call, Event, Place};
use crate::replay::Replay;
use crate::workload::Life;

/// One crash: behind an event of a recording, with a loss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    point: usize,
    loss: Loss,
    metadata: Metadata,
    seed: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}:{:?}:{}", self.point, self.loss, self.metadata, self.seed)
    }
}

impl Cut {
    fn read(text: &str) -> Self {
        let words: Vec<&str> = text.split(':').collect();
        let [point, loss, metadata, seed] = words[..] else { panic!("no cut: {text}") };
        let loss = Loss::ALL.into_iter().find(|it| format!("{it:?}") == loss).unwrap();
        let metadata = Metadata::ALL.into_iter().find(|it| format!("{it:?}") == metadata).unwrap();
        Self { point: point.parse().unwrap(), loss, metadata, seed: seed.parse().unwrap() }
    }

    fn at(point: usize, loss: Loss, random: &mut Random) -> Self {
        Self { point, loss, metadata: Metadata::ALL[random.below(2) as usize], seed: random.next() >> 32 }
    }

    fn image(&self, replay: &Replay) -> Image {
        let mut random = Random::new(self.seed);
        replay.disk.crash(self.loss, self.metadata, &mut |end| random.below(end))
    }
}

/// What one or more lives of a store did, from a start on.
pub(crate) struct Recording {
    place: Place,
    /// Removes it in the end; a kept one stays.
    directory: Option<TempDir>,
    start: Replay,
    events: Vec<Event>,
}

impl Recording {
    /// Records `lives`, one after the other, from an empty directory on.
    pub(crate) fn of(lives: &[Life]) -> Self {
        Self::from(Image::default(), History::default(), lives)
    }

    /// The same from a directory that holds `image`.
    fn from(image: Image, history: History, lives: &[Life]) -> Self {
        let directory = scratch();
        let place = Place { root: directory.path().to_owned() };
        place.begin(&image, &history);
        let mut events = Vec::new();
        for life in lives {
            place.record(*life);
            events.extend(place.events(life.number, events.len()));
        }
        Self { place, directory: Some(directory), start: Replay::from(&image, history), events }
    }

    /// One that was kept because of a fault.
    pub(crate) fn kept(root: &str) -> Self {
        let place = Place { root: root.into() };
        let (image, history) = place.start();
        let mut events = Vec::new();
        for number in place.lives() {
            events.extend(place.events(number, events.len()));
        }
        Self { place, directory: None, start: Replay::from(&image, history), events }
    }

    /// Just behind the event at `point`.
    fn at(&self, point: usize) -> Replay {
        let mut replay = self.start.clone();
        for event in &self.events[..=point] {
            replay.step(event);
        }
        replay
    }

    /// Whether the store was written anew in it.
    pub(crate) fn renames_a_copy(&self) -> bool {
        let renamed =
            |event: &Event| matches!(event, Event::Begin(_, Call::Rename(from, _)) if from.starts_with(COPY));
        self.events.iter().any(renamed)
    }

    /// The moments at which the disk may have changed.
    fn points(&self) -> Vec<usize> {
        let changes = |(_, event): &(usize, &Event)| matches!(event, Event::Begin(..) | Event::Done(_));
        self.events.iter().enumerate().filter(changes).map(|(at, _)| at).collect()
    }

    /// As many cuts as wanted: those of a killed process at every moment, where
    /// there is room for them, and then anything anywhere.
    pub(crate) fn some_cuts(&self, count: usize, random: &mut Random) -> Vec<Cut> {
        let points = self.points();
        let mut cuts = Vec::new();
        if points.len() * 2 < count {
            cuts.extend(points.iter().map(|point| Cut::at(*point, Loss::Nothing, random)));
        }
        while cuts.len() < count {
            let point = points[random.below(points.len() as u64) as usize];
            cuts.push(Cut::at(point, Loss::ALL[random.below(7) as usize], random));
        }
        cuts
    }

    /// Every loss at every moment, so many times.
    pub(crate) fn all_cuts(&self, times: usize, random: &mut Random) -> Vec<Cut> {
        let mut cuts = Vec::new();
        for point in self.points() {
            for loss in Loss::ALL {
                cuts.extend((0..times).map(|_| Cut::at(point, loss, random)));
            }
        }
        cuts
    }

    /// Writes the state of a fault down beside its recording, and judges it.
    /// `text` is what the fault was told with.
    pub(crate) fn repeat(text: &str) {
        let (root, cut) = text.split_once(':').unwrap();
        let (recording, cut) = (Self::kept(root), Cut::read(cut));
        for event in &recording.events[cut.point.saturating_sub(9)..=cut.point] {
            println!("{}", format!("{event:?}").chars().take(120).collect::<String>());
        }
        let replay = recording.at(cut.point);
        let (image, state) = (cut.image(&replay), recording.place.root.join("state"));
        let _ = std::fs::remove_dir_all(&state);
        image.save(&state).unwrap();
        println!("the crash left {}", state.display());
        judge(&image, &replay.history, scratch().path()).unwrap();
    }

    /// The same as if some calls had never been made.
    pub(crate) fn without(mut self, left_out: impl Fn(&Call) -> bool) -> Self {
        let mut gone = BTreeSet::new();
        self.events.retain(|event| match event {
            Event::Begin(number, call) if left_out(call) => {
                gone.insert(*number);
                false
            }
            Event::Done(number) => !gone.contains(number),
            _ => true,
        });
        assert!(!gone.is_empty(), "nothing was left out");
        self
    }

    /// Puts the store through every cut. Panics at what was lost, with a line
    /// that repeats it.
    pub(crate) fn hold(self, what: &str, cuts: Vec<Cut>) -> Verdicts {
        let verdicts = self.judged(cuts);
        println!("{what}: {} events; {verdicts}", self.events.len());
        if let Some((cut, fault)) = verdicts.faults.first() {
            let kept = self.place.root;
            let _ = self.directory.map(TempDir::keep);
            for (cut, fault) in verdicts.faults.iter().take(20) {
                println!("{cut}: {}", fault.chars().take(600).collect::<String>());
            }
            panic!(
                "{} faults, the first: {fault}\nrepeat it with\nMAILONCE_CUT={}:{cut} \
                 cargo test --features crash-points --test crash_consistency -- --exact {what} --nocapture",
                verdicts.faults.len(),
                kept.display()
            );
        }
        verdicts
    }

    /// What comes of every cut, worked out on all processors.
    pub(crate) fn judged(&self, mut cuts: Vec<Cut>) -> Verdicts {
        cuts.sort_by_key(|cut| cut.point);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (verdicts, share) = (Mutex::new(Verdicts::default()), cuts.len().div_ceil(threads).max(1));
        std::thread::scope(|scope| {
            for cuts in cuts.chunks(share) {
                scope.spawn(|| self.hold_some(cuts, &verdicts));
            }
        });
        verdicts.into_inner().unwrap()
    }

    /// Crashes, each of which is then opened by a process of its own, that is
    /// recorded again: what a crash does to the mending of a crash.
    pub(crate) fn second(&self, cut: Cut, life: Life) -> Self {
        let replay = self.at(cut.point);
        Self::from(cut.image(&replay), replay.history, &[life])
    }

    fn hold_some(&self, cuts: &[Cut], verdicts: &Mutex<Verdicts>) {
        let (mut replay, mut next) = (self.start.clone(), 0);
        for cut in cuts {
            while next <= cut.point {
                replay.step(&self.events[next]);
                next += 1;
            }
            let directory = scratch();
            let verdict = judge(&cut.image(&replay), &replay.history, directory.path());
            verdicts.lock().unwrap().add(*cut, verdict, replay.history.promised());
        }
    }
}

/// Somewhere for thousands of stores; in memory where that can be had, for what
/// matters is which calls are made, and not how long the disk takes for them.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// What came of many cuts.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) states: BTreeMap<String, usize>,
    pub(crate) mended: usize,
    /// Ids that were promised, over all states.
    pub(crate) promised: usize,
    pub(crate) faults: Vec<(Cut, String)>,
}

impl Verdicts {
    fn add(&mut self, cut: Cut, verdict: Result<Opened, String>, promised: usize) {
        *self.states.entry(format!("{:?}", cut.loss)).or_default() += 1;
        self.promised += promised;
        match verdict {
            Ok(Opened::AsItWas) => {}
            Ok(Opened::Mended) => self.mended += 1,
            Err(fault) => self.faults.push((cut, fault)),
        }
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: usize = self.states.values().sum();
        write!(f, "{all} states ({:?}), {} mended, {} promises", self.states, self.mended, self.promised)
    }
}
