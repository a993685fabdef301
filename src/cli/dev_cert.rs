//! `mailonce dev-cert`: a CA and a server certificate for trying TLS out.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::CliFault;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::values::machine_name;

/// Some clients take no certificate that is valid for longer.
const VALID: Duration = Duration::from_secs(820 * DAY);
const DAY: u64 = 86_400;

/// Arguments of `dev-cert`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mailonce dev-cert && curl --ssl-reqd --cacert certs/ca.pem smtp://localhost:2525"
)]
pub struct DevCertArgs {
    /// Where to write ca.pem, ca.key, server.pem and server.key
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub dir: PathBuf,
}

/// Writes the files, and says how to use them.
pub fn run(args: &DevCertArgs) -> Result<(), CliFault> {
    let made = make(&names(machine_name()), SystemClock.now())
        .map_err(|error| CliFault::Failed(format!("a certificate can't be made: {error}")))?;
    let files = made.map(|(name, kind, content)| (args.dir.join(name), kind, content));
    if let Some((there, ..)) = files.iter().find(|(path, ..)| path.exists()) {
        return Err(CliFault::Failed(format!(
            "{} is there already and is not overwritten; remove it, or name another folder with --dir",
            there.display()
        )));
    }
    let failed =
        |path: &Path, error| CliFault::Failed(format!("{} can't be written: {error}", path.display()));
    std::fs::create_dir_all(&args.dir).map_err(|error| failed(&args.dir, error))?;
    for (path, kind, content) in &files {
        write(path, *kind, content).map_err(|error| failed(path, error))?;
    }
    super::print(instructions(&args.dir).as_bytes())
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    Secret,
}

/// What the server is called: as clients on this machine call it, and by the
/// machine's own name.
fn names(machine: String) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    if !names.contains(&machine) {
        names.push(machine);
    }
    names
}

fn make(names: &[String], now: Timestamp) -> Result<[(&'static str, Kind, String); 4], rcgen::Error> {
    let mut params = dated(CertificateParams::default(), now);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "mailonce development CA");
    let ca_key = KeyPair::generate()?;
    let ca = params.self_signed(&ca_key)?;
    let ca_secret = ca_key.serialize_pem();
    let issuer = Issuer::new(params, ca_key);

    let mut params = dated(CertificateParams::new(names)?, now);
    params.distinguished_name.push(DnType::CommonName, "mailonce development server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let server = params.signed_by(&key, &issuer)?;
    Ok([
        ("ca.pem", Kind::Public, ca.pem()),
        ("ca.key", Kind::Secret, ca_secret),
        ("server.pem", Kind::Public, server.pem()),
        ("server.key", Kind::Secret, key.serialize_pem()),
    ])
}

/// Valid from yesterday, for clocks that are late.
fn dated(mut params: CertificateParams, now: Timestamp) -> CertificateParams {
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_millis() / 1000);
    params.not_before = now - Duration::from_secs(DAY);
    params.not_after = now + VALID;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn write(path: &Path, kind: Kind, content: &str) -> std::io::Result<()> {
    let mode = match kind {
        Kind::Public => 0o644,
        Kind::Secret => 0o600,
    };
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(content.as_bytes())
}

fn instructions(directory: &Path) -> String {
    let name = |name: &str| directory.join(name).display().to_string();
    format!(
        "Written: ca.pem, ca.key, server.pem and server.key in {}.\n\
         Put this into a [[listener]]:\n\n  \
         tls = \"starttls\"\n  \
         certificate = {:?}\n  \
         private_key = {:?}\n\n\
         Clients trust it with the CA {}. These are for development only:\n\
         whoever has ca.key can pass for any server.\n",
        directory.display(),
        name("server.pem"),
        name("server.key"),
        name("ca.pem"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_called_by_every_name_of_this_machine_once() {
        assert_eq!(names("relay.test".into()), ["localhost", "127.0.0.1", "::1", "relay.test"]);
        assert_eq!(names("localhost".into()), ["localhost", "127.0.0.1", "::1"]);
    }
}
