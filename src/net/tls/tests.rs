//! Files that are good, faulty or replaced; which certificate is shown; whose
//! one is.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, KeyPair as Key, SanType};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use tempfile::TempDir;

use std::sync::Arc;

use super::*;
use crate::config::{KeyPair, NamedFile};
use crate::net::port::Port;

/// 2026-11-21.
const NOW: Timestamp = Timestamp::from_millis(1_795_248_900_000);

struct Made {
    certificate: rcgen::Certificate,
    key: Key,
}

/// A certificate that signs itself.
fn made(params: CertificateParams) -> Made {
    let key = Key::generate().unwrap();
    Made { certificate: params.self_signed(&key).unwrap(), key }
}

fn named(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
}

fn file(directory: &TempDir, name: &str, key: &str) -> NamedFile {
    NamedFile { path: directory.path().join(name), named_by: format!("m.toml:1: listener.{key}") }
}

fn settings(directory: &TempDir, names: &[&str]) -> ListenerTls {
    let pair = |name: &&str| KeyPair {
        certificate: file(directory, &format!("{name}.pem"), "certificate"),
        private_key: file(directory, &format!("{name}.key"), "private_key"),
    };
    let key_pairs = names.iter().map(pair).collect();
    ListenerTls { start: TlsStart::Offered, key_pairs, client_ca: None }
}

fn write(directory: &TempDir, name: &str, made: &Made) {
    std::fs::write(directory.path().join(format!("{name}.pem")), made.certificate.pem()).unwrap();
    let key = directory.path().join(format!("{name}.key"));
    std::fs::write(&key, made.key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn fault(settings: &ListenerTls) -> String {
    Tls::load(settings, NOW).unwrap_err().to_string()
}

#[test]
fn faults_name_who_names_the_file_the_file_and_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(&directory, &["a"]);
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (pem, key) = (path("a.pem"), path("a.key"));
    let missing = format!("m.toml:1: listener.certificate: {pem}: can't be read: ");
    assert!(fault(&settings).starts_with(&missing), "{}", fault(&settings));

    let (one, other) = (made(named(&["a.test"])), made(named(&["a.test"])));
    std::fs::write(&pem, one.key.serialize_pem()).unwrap();
    let want = "there is no certificate in it; one begins with -----BEGIN CERTIFICATE-----";
    assert_eq!(fault(&settings), format!("m.toml:1: listener.certificate: {pem}: {want}"));
    std::fs::write(&pem, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    assert_eq!(fault(&settings), format!("m.toml:1: listener.certificate: {pem}: not valid PEM"));
    std::fs::write(&pem, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let want = "the first certificate in it can't be understood";
    assert_eq!(fault(&settings), format!("m.toml:1: listener.certificate: {pem}: {want}"));

    write(&directory, "a", &one);
    std::fs::write(&key, one.certificate.pem()).unwrap();
    let want = "there is no private key in it that can be used; it is PEM, and must not be encrypted";
    assert_eq!(fault(&settings), format!("m.toml:1: listener.private_key: {key}: {want}"));
    std::fs::write(&key, other.key.serialize_pem()).unwrap();
    let want = format!("this key does not belong to the certificate in {pem}");
    assert_eq!(fault(&settings), format!("m.toml:1: listener.private_key: {key}: {want}"));

    write(&directory, "a", &one);
    Tls::load(&settings, NOW).unwrap();
    settings.client_ca = Some(file(&directory, "a.key", "client_ca"));
    assert!(fault(&settings).starts_with(&format!("m.toml:1: listener.client_ca: {key}: there is no cert")));
}

#[test]
fn every_listener_with_faulty_files_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[[listener]]\nname = \"a\"\ntls = \"implicit\"\ncertificate = \"no-a\"\nprivate_key = \"k\"\n\
                [[listener]]\nname = \"b\"\naddress = \"127.0.0.1:1\"\ntls = \"starttls\"\ncertificate = \"no-b\"\n\
                private_key = \"k\"\n[upstream]\naddress = \"a:1\"\n";
    let mut config = crate::config::Config::parse(text, "m.toml", std::iter::empty()).unwrap();
    let lines = Port::all(&config.listeners, NOW).unwrap_err().to_string();
    let starts: Vec<_> = lines.lines().map(|line| line.split(": can't").next().unwrap()).collect();
    assert_eq!(starts, ["m.toml:4: listener.certificate: no-a", "m.toml:10: listener.certificate: no-b"]);

    write(&directory, "a", &made(named(&["a.test"])));
    config.listeners[0].tls = None;
    config.listeners[1].tls = Some(settings(&directory, &["a"]));
    let ports = Port::all(&config.listeners, NOW).unwrap();
    assert!(ports[0].tls.is_none() && ports[1].tls.is_some());
    assert!(ports[1].implicit().is_none(), "it waits for STARTTLS");
}

#[test]
fn a_certificate_out_of_its_time_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory, &["a"]);
    for (from, to, want) in
        [(2026, 2027, None), (2024, 2025, Some("has expired")), (2028, 2029, Some("is not valid yet"))]
    {
        let mut params = named(&["a.test"]);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        write(&directory, "a", &made(params));
        let tls = Tls::load(&settings, NOW).unwrap();
        let warned = tls.warnings().first().map(String::as_str);
        assert_eq!(warned.is_some(), want.is_some(), "{from}");
        let start = format!("m.toml:1: listener.certificate: {}: this certificate ", path(&settings));
        let said = warned.is_none_or(|warned| {
            warned.strip_prefix(&start).is_some_and(|rest| rest.starts_with(want.unwrap()))
        });
        assert!(said, "{warned:?}");
    }
}

#[test]
fn a_key_that_everybody_can_read_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(&directory, &["a"]);
    write(&directory, "a", &made(named(&["a.test"])));
    assert_eq!(Tls::load(&settings, NOW).unwrap().warnings(), [""; 0]);
    let key = &settings.key_pairs[0].private_key.path;
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let told = Tls::load(&settings, NOW).unwrap().warnings().to_vec();
    let want =
        format!("m.toml:1: listener.private_key: {}: everybody on this machine can read", key.display());
    assert!(told.len() == 1 && told[0].starts_with(&want), "{told:?}");
}

fn path(settings: &ListenerTls) -> String {
    settings.key_pairs[0].certificate.path.display().to_string()
}

/// The certificate that a client is shown that asks for this name.
fn shown(tls: &Tls, name: &str, trusted: &[&Made]) -> CertificateBytes {
    let mut roots = RootCertStore::empty();
    for made in trusted {
        roots.add(made.certificate.der().clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(tls.current.load_full()).unwrap();
    let mut flight = Vec::new();
    client.write_tls(&mut flight).unwrap();
    server.read_tls(&mut &flight[..]).unwrap();
    server.process_new_packets().unwrap();
    flight.clear();
    server.write_tls(&mut flight).unwrap();
    client.read_tls(&mut &flight[..]).unwrap();
    // A name that no certificate has is an error to the client.
    let _ = client.process_new_packets();
    client.peer_certificates().map(|chain| chain[0].to_vec())
}

type CertificateBytes = Option<Vec<u8>>;

#[test]
fn clients_are_shown_the_certificate_with_the_name_that_they_ask_for() {
    let directory = tempfile::tempdir().unwrap();
    let first = made(named(&["one.test"]));
    let second = made(named(&["two.test", "*.wild.test"]));
    write(&directory, "first", &first);
    write(&directory, "second", &second);
    let tls = Tls::load(&settings(&directory, &["first", "second"]), NOW).unwrap();
    let trusted = [&first, &second];
    let der = |made: &Made| Some(made.certificate.der().to_vec());
    assert_eq!(shown(&tls, "one.test", &trusted), der(&first));
    assert_eq!(shown(&tls, "two.test", &trusted), der(&second));
    assert_eq!(shown(&tls, "mail.wild.test", &trusted), der(&second));
    assert_eq!(shown(&tls, "127.0.0.1", &trusted), None, "the first one, which has another name");
}

#[test]
fn changed_files_are_read_again_and_faulty_ones_are_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (made(named(&["a.test"])), made(named(&["a.test"])));
    write(&directory, "a", &old);
    let tls = Tls::load(&settings(&directory, &["a"]), NOW).unwrap();
    let first = tls.current.load_full();
    tls.refresh(NOW);
    assert!(Arc::ptr_eq(&first, &tls.current.load()), "nothing has changed");
    // Only half of it is there yet.
    replace(&directory.path().join("a.pem"), &new.certificate.pem());
    tls.refresh(NOW);
    assert!(Arc::ptr_eq(&first, &tls.current.load()), "a key that does not fit");
    std::fs::remove_file(directory.path().join("a.key")).unwrap();
    tls.refresh(NOW);
    assert!(Arc::ptr_eq(&first, &tls.current.load()), "no key at all");
    assert_eq!(shown(&tls, "a.test", &[&old]), Some(old.certificate.der().to_vec()));
    replace(&directory.path().join("a.key"), &new.key.serialize_pem());
    tls.refresh(NOW);
    assert_eq!(shown(&tls, "a.test", &[&new]), Some(new.certificate.der().to_vec()));
}

/// As tools that renew certificates do it.
fn replace(path: &Path, content: &str) {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, content).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

#[test]
fn a_client_is_called_by_its_dns_name_else_its_address_else_its_common_name() {
    let certificate = |alternatives: Vec<SanType>, common: Option<&str>| {
        let mut params = named(&[]);
        params.subject_alt_names = alternatives;
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        name_of(made(params).certificate.der())
    };
    let ia5 = |text: &str| Ia5String::try_from(text).unwrap();
    let dns = |name: &str| SanType::DnsName(ia5(name));
    let mail = || SanType::Rfc822Name(ia5("shop@a.test"));
    let address = || SanType::IpAddress([192, 0, 2, 1].into());
    assert_eq!(certificate(vec![mail(), dns("shop.test"), dns("b.test")], Some("c")).unwrap(), "shop.test");
    assert_eq!(certificate(vec![address(), mail()], Some("c")).unwrap(), "shop@a.test");
    assert_eq!(certificate(vec![address()], Some("the shop")).unwrap(), "the shop");
    assert_eq!(certificate(vec![], None), Err(NameFault::Nameless));
    for unusable in ["caf\u{e9}", "", "a\r\nb", &"x".repeat(257)] {
        let fault = certificate(vec![], Some(unusable)).unwrap_err();
        assert!(matches!(fault, NameFault::Unusable(_)), "{unusable:?} {fault}");
    }
    // The first is the name, usable or not: another one would be another tenant.
    assert!(certificate(vec![dns(""), dns("b.test")], None).is_err());
    let garbage = rustls::pki_types::CertificateDer::from_pem_slice(
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    assert_eq!(name_of(&garbage.unwrap()), Err(NameFault::Unreadable));
}
