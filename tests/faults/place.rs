//! File systems of a test's own, gone when it ends.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::statvfs;

/// Runs a program that must do what it is told.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed and can't be run: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    let root = rustix::process::geteuid().is_root();
    assert!(output.status.success(), "{program} {arguments:?} (root: {root}): {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// A mounted file system.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    /// For one in a file of its own.
    image: bool,
}

impl Place {
    /// In memory, of so many MiB.
    pub(crate) fn in_memory(mib: u64) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap(), image: false };
        std::fs::create_dir(place.path()).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "mailonce-test", place.text()]);
        place
    }

    /// ext4 on a loop device, of so many MiB; read-only after an error.
    pub(crate) fn on_disk(mib: u64) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap(), image: true };
        std::fs::create_dir(place.path()).unwrap();
        let image = place.directory.path().join("image");
        File::create(&image).unwrap().set_len(mib * 1024 * 1024).unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
        place.mount();
        place
    }

    fn mount(&self) {
        let image = self.directory.path().join("image");
        run("mount", &["-o", "loop,errors=remount-ro", image.to_str().unwrap(), self.text()]);
    }

    /// What the kernel does where the disk fails it.
    pub(crate) fn make_read_only(&self) {
        run("mount", &["-o", "remount,abort", self.text()]);
    }

    /// What an operator does then.
    pub(crate) fn mount_again(&self) {
        assert!(self.image);
        run("umount", &[self.text()]);
        self.mount();
    }

    /// Makes one in memory larger.
    pub(crate) fn grow(&self, mib: u64) {
        run("mount", &["-o", &format!("remount,size={mib}m"), self.text()]);
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("place")
    }

    fn text(&self) -> &str {
        Box::leak(self.path().display().to_string().into_boxed_str())
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes all room but so many octets.
    pub(crate) fn fill(&self, left: u64) {
        let mut file = File::create(self.ballast()).unwrap();
        let block = vec![b'x'; 64 * 1024];
        loop {
            let room = self.free().saturating_sub(left);
            let count = usize::try_from(room).unwrap().min(block.len());
            // On ext4 what is written last may not find its place any more.
            if count == 0 || file.write_all(&block[..count]).and_then(|()| file.sync_data()).is_err() {
                return;
            }
        }
    }

    /// Gives the room back.
    pub(crate) fn free_up(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn free(&self) -> u64 {
        let found = statvfs(&*self.path()).unwrap();
        found.f_bavail * found.f_frsize
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Lazily: a proxy of a failing test may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Where a test's own file is found.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults").join(name)
}
