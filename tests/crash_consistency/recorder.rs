//! Every write, sync and change of a name that a process makes in a directory,
//! as strace sees them, with their octets.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::content::{COPY, Change, Image};
use crate::history::History;
use crate::workload::Life;

/// What reaches the disk, or asks it to keep something. `sync_file_range` is
/// not among them: it promises nothing.
const CALLS: &str = "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,fdatasync,fsync,ftruncate,truncate,\
                     fallocate,rename,renameat,renameat2,unlink,unlinkat,link,linkat,copy_file_range,sendfile,sync,\
                     syncfs,msync,mmap";

/// What one call does to the directory.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Create(String),
    Change(String, Change),
    Sync(String),
    SyncDirectory,
    Rename(String, String),
    Remove(String),
}

/// In the order in which they happened. A call that strace saw neither waiting
/// nor cut off begins and ends at once.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A line of the journal.
    Note(String),
    Begin(usize, Call),
    Done(usize),
    /// Of a name, and not known whether it was done: the process was killed.
    Perhaps(Call),
    /// The process is gone, and with it what it had under way; the directory as
    /// it was then.
    Ended(Arc<Image>),
}

/// Where a life is lived and written down.
pub(crate) struct Place {
    pub(crate) root: PathBuf,
}

impl Place {
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    fn trace(&self, number: u64) -> PathBuf {
        self.root.join(format!("{number}.strace"))
    }

    /// A copy of the store as the life with this number left it.
    fn left(&self, number: u64) -> PathBuf {
        self.root.join(format!("{number}.left"))
    }

    /// Lives `life` in a process of its own, under strace: this test program
    /// again, with nothing but the test that is the workload.
    pub(crate) fn record(&self, life: Life) {
        std::fs::create_dir_all(self.store()).unwrap();
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-y",
            "-xx",
            "-s",
            "100000000",
            "--seccomp-bpf",
            "-e",
            &format!("trace={CALLS}"),
            "-o",
        ]);
        command.arg(self.trace(life.number)).arg(std::env::current_exe().unwrap());
        command.args(["--exact", crate::WORKLOAD, "--nocapture", "--test-threads=1"]);
        command.env(crate::LIFE, life.written()).env(crate::PLACE, &self.root);
        let ended = command.stdin(Stdio::null()).output().expect("strace is there (Debian: strace)");
        let killed = life.end == crate::workload::End::Killed;
        assert_eq!(ended.status.success(), !killed, "{life:?}: {}", String::from_utf8_lossy(&ended.stderr));
        Image::of(&self.store()).unwrap().save(&self.left(life.number)).unwrap();
    }

    /// Writes down what there is before the first life.
    pub(crate) fn begin(&self, image: &Image, history: &History) {
        image.save(&self.store()).unwrap();
        image.save(&self.left(0)).unwrap();
        std::fs::write(self.root.join("history"), history.written()).unwrap();
    }

    /// What there was before the first life.
    pub(crate) fn start(&self) -> (Image, History) {
        let history = std::fs::read_to_string(self.root.join("history")).unwrap();
        (Image::of(&self.left(0)).unwrap(), History::read(&history))
    }

    /// The numbers of the lives that are written down here.
    pub(crate) fn lives(&self) -> impl Iterator<Item = u64> {
        (1..).take_while(|number| self.trace(*number).exists())
    }

    /// What the life with this number did.
    pub(crate) fn events(&self, number: u64, first_call: usize) -> Vec<Event> {
        let file = std::fs::File::open(self.trace(number)).unwrap();
        let mut reading = Reading::new(&self.store(), &self.journal(), first_call);
        for line in BufReader::with_capacity(1 << 20, file).split(b'\n') {
            reading.line(std::str::from_utf8(&line.unwrap()).expect("strace writes ASCII"));
        }
        let mut events = reading.ended();
        let real = Image::of(&self.left(number)).unwrap();
        events.push(Event::Ended(Arc::new(real)));
        events
    }
}

struct Reading {
    store: String,
    journal: String,
    next: usize,
    events: Vec<Event>,
    /// The call that each thread has under way, and how its line began.
    open: HashMap<String, (usize, String)>,
    /// Where the next `write` to a descriptor goes.
    offsets: HashMap<String, u64>,
}

impl Reading {
    fn new(store: &Path, journal: &Path, next: usize) -> Self {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (store, journal) = (text(store), text(journal));
        Self { store, journal, next, events: Vec::new(), open: HashMap::new(), offsets: HashMap::new() }
    }

    fn line(&mut self, line: &str) {
        let Some((thread, rest)) = line.split_once(' ') else { return };
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            return;
        }
        if let Some(rest) = rest.strip_prefix("<... ") {
            let result = rest.rsplit_once(" = ").map_or("?", |(_, result)| result);
            if let Some((call, begun)) = self.open.remove(thread) {
                if call == usize::MAX && result == "?" {
                    self.perhaps(&begun);
                } else if call == usize::MAX {
                    // What is known only by its result is taken as one moment.
                    self.whole(&begun, result);
                } else if result != "?" {
                    assert!(!result.starts_with('-'), "a call failed: {rest}");
                    self.events.push(Event::Done(call));
                }
            }
        } else if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            self.unfinished(thread, begun);
        } else if let Some((begun, result)) = rest.rsplit_once(" = ") {
            self.whole(begun, result);
        }
    }

    /// What the kill cut off.
    fn ended(mut self) -> Vec<Event> {
        for (call, begun) in std::mem::take(&mut self.open).into_values() {
            if call == usize::MAX {
                self.perhaps(&begun);
            }
        }
        self.events
    }

    fn perhaps(&mut self, begun: &str) {
        let created = begun.starts_with("openat(") && begun.contains("O_CREAT");
        let call = if created {
            quoted_paths(begun).last().and_then(|path| self.inside(path)).map(Call::Create)
        } else {
            self.call(begun, None)
        };
        self.events.extend(call.map(Event::Perhaps));
    }

    fn unfinished(&mut self, thread: &str, begun: &str) {
        let waits =
            ["write(", "pwrite64(", "fdatasync(", "fsync("].iter().any(|name| begun.starts_with(name));
        let call = if waits {
            match self.call(begun, None) {
                Some(call) => self.begin(call),
                None => return,
            }
        } else {
            usize::MAX
        };
        self.open.insert(thread.to_owned(), (call, begun.to_owned()));
    }

    fn whole(&mut self, begun: &str, result: &str) {
        if result.starts_with('-') || result.starts_with('?') {
            return;
        }
        if let Some(call) = self.call(begun, Some(result)) {
            let number = self.begin(call);
            self.events.push(Event::Done(number));
        }
    }

    fn begin(&mut self, call: Call) -> usize {
        self.next += 1;
        self.events.push(Event::Begin(self.next, call));
        self.next
    }

    /// What the call does to the directory; `None` for nothing. A line of the
    /// journal is noted as soon as its writing begins.
    fn call(&mut self, begun: &str, result: Option<&str>) -> Option<Call> {
        let (name, arguments) = begun.split_once('(')?;
        let arguments = arguments.trim_end().trim_end_matches(')');
        match name {
            "openat" => self.opened(arguments, result?),
            "write" => {
                let (descriptor, path) = descriptor(arguments)?;
                if path == self.journal {
                    let text = String::from_utf8(quoted(arguments).remove(0)).unwrap();
                    self.events.push(Event::Note(text.trim_end().to_owned()));
                    return None;
                }
                let name = self.inside(&path)?;
                let octets: Arc<[u8]> = quoted(arguments).remove(0).into();
                let offset = self.offsets.entry(descriptor).or_default();
                let at = *offset;
                *offset += octets.len() as u64;
                Some(Call::Change(name, Change::Write { at, octets }))
            }
            "pwrite64" => {
                let name = self.inside(&descriptor(arguments)?.1)?;
                let at = arguments.rsplit(", ").next()?.parse().unwrap();
                Some(Call::Change(name, Change::Write { at, octets: quoted(arguments).remove(0).into() }))
            }
            "fdatasync" | "fsync" => {
                let path = descriptor(arguments)?.1;
                if path == self.store {
                    Some(Call::SyncDirectory)
                } else {
                    self.inside(&path).map(Call::Sync)
                }
            }
            "ftruncate" => {
                let name = self.inside(&descriptor(arguments)?.1)?;
                Some(Call::Change(name, Change::Length(arguments.rsplit(", ").next()?.parse().unwrap())))
            }
            "rename" => {
                let mut names = quoted(arguments).into_iter().map(|name| String::from_utf8(name).unwrap());
                let (from, to) = (self.inside(&names.next()?)?, self.inside(&names.next()?)?);
                Some(Call::Rename(from, to))
            }
            "unlink" | "unlinkat" => {
                let name = String::from_utf8(quoted(arguments).pop()?).unwrap();
                let within = descriptor(arguments).filter(|_| !name.starts_with('/'));
                let path = within.map_or(name.clone(), |(_, directory)| format!("{directory}/{name}"));
                self.inside(&path).map(Call::Remove)
            }
            "mmap" => {
                let writes = arguments.contains("PROT_WRITE") && arguments.contains("MAP_SHARED");
                let ours = || quoted_paths(arguments).iter().any(|path| self.inside(path).is_some());
                assert!(!writes || !ours(), "written through a mapping: {begun}");
                None
            }
            // Nothing that is known here; only other directories may see it.
            _ => {
                let ours = quoted_paths(arguments).iter().any(|path| self.inside(path).is_some());
                assert!(!ours, "the recorder does not know {begun}");
                None
            }
        }
    }

    fn opened(&mut self, arguments: &str, result: &str) -> Option<Call> {
        let (descriptor, path) = descriptor(result)?;
        self.offsets.insert(descriptor, 0);
        let name = self.inside(&path)?;
        assert!(!arguments.contains("O_TRUNC") && !arguments.contains("O_APPEND"), "{arguments}");
        arguments.contains("O_CREAT").then_some(Call::Create(name))
    }

    /// The name of a file in the directory itself, or in that of a copy.
    fn inside(&self, path: &str) -> Option<String> {
        let name = path.strip_prefix(&self.store)?.strip_prefix('/')?;
        let file = match name.split_once('/') {
            Some((directory, file)) if directory.starts_with(COPY) => file,
            None if !name.starts_with(COPY) => name,
            _ => return None,
        };
        (!file.is_empty() && !file.contains('/')).then(|| name.to_owned())
    }
}

/// `5<PATH>`, as the number and the path. A file without a name any more is
/// none: no crash leaves it.
fn descriptor(text: &str) -> Option<(String, String)> {
    let (number, rest) = text.split_once('<')?;
    let (path, behind) = rest.split_once('>')?;
    let path = String::from_utf8(octets(path)).unwrap();
    (!behind.starts_with("(deleted")).then(|| (number.to_owned(), path))
}

/// Every text in quotes.
fn quoted(arguments: &str) -> Vec<Vec<u8>> {
    arguments.split('"').skip(1).step_by(2).map(octets).collect()
}

/// Every path, in quotes or of a descriptor.
fn quoted_paths(arguments: &str) -> Vec<String> {
    let between =
        arguments.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(path, _)| octets(path));
    quoted(arguments).into_iter().chain(between).filter_map(|path| String::from_utf8(path).ok()).collect()
}

/// `\x61\x62`, as octets.
fn octets(escaped: &str) -> Vec<u8> {
    let digit = |octet: u8| (octet as char).to_digit(16).expect("a hexadecimal digit") as u8;
    escaped.as_bytes().chunks_exact(4).map(|four| digit(four[2]) << 4 | digit(four[3])).collect()
}
