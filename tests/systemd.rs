//! The unit for systemd: that it is understood, how much it leaves open, and
//! what the program tells whoever has started it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that can't go on ends")]

mod common;

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use common::program::bounded;
use common::{At, DEADLINE, Mail, Setup, Upstream, meanwhile};
use rustix::process::Signal;

/// The unit, with the program that is tested in the place of an installed one.
fn unit() -> (tempfile::TempDir, PathBuf) {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/mailonce.service"));
    let text = text.unwrap();
    let installed = "ExecStart=/usr/local/bin/mailonce ";
    assert!(text.contains(installed));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mailonce.service");
    let built = format!("ExecStart={} ", env!("CARGO_BIN_EXE_mailonce"));
    std::fs::write(&path, text.replace(installed, &built)).unwrap();
    (directory, path)
}

#[test]
fn the_unit_is_understood() {
    let (_keep, unit) = unit();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&unit);
    let output = bounded(verify);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Faults of other units on the machine are none of ours.
    assert!(output.status.success() && !said.contains("mailonce.service"), "{said}");
}

/// What is still open is the network, which it lives on. Ten times the figure
/// that systemd-analyze shows; other versions of it judge a little differently.
const MOST_EXPOSED: u32 = 15;

#[test]
fn the_unit_leaves_little_open() {
    let (_keep, unit) = unit();
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager"]).arg(format!("--threshold={MOST_EXPOSED}"));
    security.arg(&unit);
    let output = bounded(security);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What was told next.
fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let count = manager.recv(&mut buffer).expect("nothing is told");
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

#[test]
fn the_service_manager_hears_when_it_is_ready_reloads_and_ends() {
    let upstream = Upstream::start();
    let setup = Setup::new(upstream.address).top("drain = \"100s\"");
    let path = setup.directory().join("manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut proxy = setup.start_with(|command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(told(&manager).trim(), "READY=1");
    for faulty in [false, true] {
        if faulty {
            std::fs::write(setup.directory().join("mailonce.toml"), "nonsense").unwrap();
        }
        proxy.process.signal(Signal::HUP);
        let reloading = told(&manager);
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(told(&manager).trim(), "READY=1", "a faulty configuration changes nothing");
    }
    // With an attempt under way it may take as long as `drain` says.
    let gate = upstream.gate(At::Dot);
    let mut client = proxy.client();
    let reply = meanwhile(move || client.deliver(&Mail::keyed("k")));
    gate.reached();
    proxy.process.signal(Signal::TERM);
    assert_eq!(told(&manager).trim(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=115000000");
    gate.open();
    assert_eq!(reply.join().unwrap(), "250 2.0.0 queued as 1");
    assert_eq!(proxy.process.wait().code(), Some(0));
}
