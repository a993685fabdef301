//! The users file: what is taken, what is refused and how that is told.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

/// Of the password `secret`, as cheap as can be.
const CHEAP: &str =
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// One that nothing is wrong with; its password does not matter.
const GOOD: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

struct Scene {
    directory: tempfile::TempDir,
    file: NamedFile,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = NamedFile {
            path: directory.path().join("users.toml"),
            named_by: "m.toml:5: listener.users".to_owned(),
        };
        Self { directory, file }
    }

    /// A file of its own each time, as editors do it.
    fn write(&self, content: impl AsRef<[u8]>) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, content).unwrap();
        self.chmod(&new, 0o600);
        std::fs::rename(new, &self.file.path).unwrap();
    }

    fn chmod(&self, path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self, content: impl AsRef<[u8]>) -> Users {
        self.write(content);
        Users::load(&self.file).unwrap()
    }

    /// The faults of a file, without what is the same for all.
    fn faults(&self, content: impl AsRef<[u8]>) -> String {
        self.write(content);
        let fault = Users::load(&self.file).unwrap_err().to_string();
        let place = format!("m.toml:5: listener.users: {}", self.file.path.display());
        assert!(fault.lines().all(|line| line.starts_with(&place)), "{fault}");
        fault.replace(&place, "")
    }
}

#[test]
fn users_are_found_by_their_exact_names() {
    let scene = Scene::new();
    let users = scene.load(format!(
        "# staff\nann = \"{GOOD}\"\n\"bob@example.com\" = '{GOOD}'\n\"jürgen\" = \"{GOOD}\"\n"
    ));
    assert_eq!(users.warnings(), [""; 0]);
    for name in ["ann", "bob@example.com", "jürgen"] {
        assert_eq!(users.find(name).unwrap().text(), GOOD, "{name}");
    }
    for stranger in ["Ann", "ann ", "", "bob"] {
        assert_eq!(users.find(stranger).unwrap_err(), USUAL, "{stranger:?}");
    }
}

#[test]
fn strangers_cost_what_most_users_do() {
    let scene = Scene::new();
    let users = scene.load(format!("a = \"{CHEAP}\"\nb = \"{CHEAP}\"\nc = \"{GOOD}\"\n"));
    assert_eq!(users.find("x").unwrap_err(), users.find("a").unwrap().cost());
}

#[test]
fn faults_name_line_user_and_what_to_do_but_never_a_hash() {
    let scene = Scene::new();
    let cases = [
        (
            "ann = \"hunter2\"".to_owned(),
            ":1: \"ann\": is no argon2id hash; write what `mailonce hash-password` prints, between quotes, never the password",
        ),
        (
            format!("\n\nann.smith = \"{GOOD}\""),
            ":3: \"ann\": is a table; a name with a dot in it goes between quotes: \"ann.smith\" = …",
        ),
        (
            "[users]".to_owned(),
            ":1: \"users\": is a table; a name with a dot in it goes between quotes: \"ann.smith\" = …",
        ),
        ("ann = 12345".to_owned(), ":1: \"ann\": is not a text; write \"name\" = \"hash\""),
        (format!("\"\" = \"{GOOD}\""), ":1: a user's name has 1 to 255 octets"),
        (format!("{} = \"{GOOD}\"", "a".repeat(256)), ":1: a user's name has 1 to 255 octets"),
        (format!("\"a\\u0000b\" = \"{GOOD}\""), ":1: a user's name has no control characters"),
    ];
    for (content, fault) in cases {
        assert_eq!(scene.faults(content), fault);
    }
    for (content, line) in [
        (format!("a = \"{GOOD}\"\na = \"{GOOD}\"\n"), ":2: not valid TOML: "),
        (format!("a = \"{GOOD}\"\nann@example.com = \"{GOOD}\"\n"), ":2: not valid TOML: "),
        (format!("\nann = {GOOD}\n"), ":2: not valid TOML: "),
        (format!("\nann = \"{GOOD}\n"), ":2: not valid TOML: "),
        ("ann = hunter2".to_owned(), ":1: not valid TOML: "),
        ("ann hunter2".to_owned(), ":1: not valid TOML: "),
    ] {
        let faults = scene.faults(&content);
        assert!(faults.starts_with(line), "{content}: {faults}");
        assert!(
            faults.ends_with("; write \"name\" = \"hash\", both between quotes, and each name once"),
            "{faults}"
        );
        assert!(
            !faults.contains("hunter2") && !faults.contains("argon2id") && !faults.contains("c29t"),
            "{faults}"
        );
    }
    assert_eq!(scene.faults(b"a = 1\n\xff"), ":2: not valid TOML: this line is not UTF-8");
}

#[test]
fn many_faults_are_told_in_order_and_then_counted() {
    let scene = Scene::new();
    let lines: Vec<_> = (0..25).rev().map(|n| format!("user{n} = \"\"\n")).collect();
    let faults = scene.faults(lines.concat());
    assert!(
        faults.starts_with(":1: \"user24\": ") && faults.ends_with("\n: 15 more faults like these"),
        "{faults}"
    );
    assert_eq!(faults.lines().count(), TOLD + 1);
}

#[test]
fn what_is_no_file_or_too_large_is_refused() {
    let scene = Scene::new();
    let fault = Users::load(&scene.file).unwrap_err().to_string();
    assert!(
        fault.contains("users.toml: can't be read: No such file") && fault.contains("hash-password"),
        "{fault}"
    );
    let folder = NamedFile { path: scene.directory.path().to_owned(), ..scene.file.clone() };
    assert!(Users::load(&folder).unwrap_err().to_string().ends_with(": is no file"));
    let size = usize::try_from(MAX_SIZE).unwrap();
    assert_eq!(scene.faults("#".repeat(size + 1)), ": is too large; at most 8388608 octets are read");
    scene.load("#".repeat(size));
}

#[test]
fn what_is_hardly_meant_is_warned_of() {
    let scene = Scene::new();
    let users = scene.load("# nobody yet\n");
    assert!(users.warnings()[0].ends_with("there is no user in it, so nobody can log in"), "{users:?}");
    let users = scene.load(format!("a = \"{GOOD}\"\nb = \"{CHEAP}\"\nc = \"{CHEAP}\"\n"));
    assert!(
        users.warnings()[0].contains(":2: the hash of \"b\" (and 1 more) is faster to guess"),
        "{users:?}"
    );
    scene.write(format!("a = \"{GOOD}\"\n"));
    for mode in [0o640, 0o604, 0o620] {
        scene.chmod(&scene.file.path, mode);
        let users = Users::load(&scene.file).unwrap();
        assert!(users.warnings()[0].contains("others can read or write it"), "{mode:o}: {users:?}");
    }
}

#[test]
fn a_changed_file_is_read_again_and_a_faulty_one_changes_nothing() {
    let scene = Scene::new();
    let users = scene.load(format!("ann = \"{CHEAP}\"\n"));
    scene.write(format!("ann = \"{GOOD}\"\nbob = \"{GOOD}\"\n"));
    assert!(users.find("bob").is_err());
    users.refresh();
    assert_eq!(users.find("ann").unwrap().text(), GOOD);
    assert!(users.find("bob").is_ok());
    scene.write("bob = \"hunter2\"\n");
    users.refresh();
    assert!(users.find("ann").is_ok() && users.find("bob").is_ok());
    std::fs::remove_file(&scene.file.path).unwrap();
    users.refresh();
    assert!(users.find("ann").is_ok());
    // Nobody at all is an answer, too: whoever was taken out is out.
    scene.write("");
    users.refresh();
    assert!(users.find("ann").is_err());
}

#[test]
fn a_large_file_is_read_whole() {
    let scene = Scene::new();
    let lines: Vec<_> = (0..10_000).map(|n| format!("user{n} = \"{GOOD}\"\n")).collect();
    let users = scene.load(lines.concat());
    assert!(users.find("user9999").is_ok());
}
