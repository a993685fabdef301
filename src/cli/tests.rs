//! Usage and exit codes.

use clap::CommandFactory;

use super::*;

fn exit(args: &[&str]) -> String {
    let args = std::iter::once("mailonce").chain(args.iter().copied()).map(OsString::from);
    format!("{:?}", run(args))
}

fn code(number: u8) -> String {
    format!("{:?}", ExitCode::from(number))
}

#[test]
fn exit_codes_tell_done_failed_and_wrong_usage() {
    assert_eq!(exit(&["--help"]), code(0));
    assert_eq!(exit(&["--version"]), code(0));
    for help in
        [&["serve", "--help"][..], &["check", "--help"], &["keys", "list", "--help"], &["keys", "show", "-h"]]
    {
        assert_eq!(exit(help), code(0), "{help:?}");
    }
    for wrong in [
        &[][..],
        &["dance"],
        &["keys"],
        &["keys", "show"],
        &["keys", "list", "--state", "lost"],
        &["keys", "list", "--since", "7 parsecs"],
        &["keys", "list", "--limit", "-1"],
        &["keys", "release"],
        // Nobody is there to be asked.
        &["keys", "release", "0123456789"],
        &["keys", "resolve", "0123456789"],
        &["keys", "resolve", "0123456789", "--as", "lost"],
        &["keys", "export", "--after", "0123456789"],
        &["stats", "--since", "yesterday"],
        &["tail", "--outcome", "lost"],
        &["explain"],
        &["explain", "a.eml", "b.eml", "c.eml"],
        &["sink", "--listen", "here"],
        &["serve", "extra"],
    ] {
        assert_eq!(exit(wrong), code(2), "{wrong:?}");
    }
    for failed in [&["check", "--config", "/nowhere"][..], &["keys", "list", "--config", "/nowhere"]] {
        assert_eq!(exit(failed), code(1), "{failed:?}");
    }
}

#[test]
fn the_definition_is_sound_and_every_command_has_an_example() {
    Args::command().debug_assert();
    fn look(command: &mut clap::Command) {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example:"), "{}: {help}", command.get_name());
        command.get_subcommands_mut().filter(|sub| sub.get_name() != "help").for_each(look);
    }
    let mut command = Args::command();
    command.build();
    look(&mut command);
}
