//! Finding the proxy, and what an answer that goes wrong means. The proxy here
//! is a script: each connection gets the next answer.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use super::*;

/// Answers one request for each text, and gives the request lines.
fn script(answers: Vec<String>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let work = move || {
        let answer = |answer: &String| {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
            let request = lines.next().unwrap();
            lines.find(String::is_empty);
            (&stream).write_all(answer.as_bytes()).unwrap();
            request
        };
        answers.iter().map(answer).collect()
    };
    (address, std::thread::spawn(work))
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// What mailonce says of a claim that it does not know.
fn known() -> String {
    answer("404 Not Found", "{\"error\":\"no record has the id\"}")
}

/// Records in one chunk; cut off without its end.
fn records(ids: &[u8], end: &str) -> String {
    let lines: String = ids.iter().map(|id| view(*id).to_json() + "\n").collect();
    let size = lines.len();
    format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{size:x}\r\n{lines}\r\n{end}"
    )
}

fn view(id: u8) -> RecordView {
    let at = "2026-11-21T08:15:00.123Z".to_owned();
    let id = format!("{id:02x}").repeat(32);
    serde_json::from_value(serde_json::json!({
        "id": id, "tenant": "t", "strategy": "header", "key": "k", "recipient": "", "sender": "", "rule": null,
        "fingerprint": id, "state": "accepted", "reply": "250 ok", "upstream": null, "message_id": null,
        "size": 1, "attempts": [], "first_seen": at, "last_seen": at, "duplicates": 0, "expires": at,
    }))
    .unwrap()
}

fn config(more: &str) -> Config {
    let text = format!("[upstream]\naddress = \"a:25\"\n{more}");
    Config::parse(&text, "m.toml", std::iter::empty()).unwrap()
}

#[test]
fn what_comes_in_the_order_of_ids_goes_on_where_it_was_cut_off() {
    let answers = vec![known(), records(&[1, 2], ""), records(&[3], "0\r\n\r\n")];
    let (address, server) = script(answers);
    let client = AdminClient::reach(address, Some("t")).unwrap();
    let mut ids = Vec::new();
    let mut take = |view: RecordView| {
        ids.push(view.id[..2].to_owned());
        Ok(ControlFlow::Continue(()))
    };
    client.each(&Wanted::default(), &mut take).unwrap();
    assert_eq!(ids, ["01", "02", "03"]);
    let requests = server.join().unwrap();
    assert!(requests[2].contains(&format!("after={}", "02".repeat(32))), "{requests:?}");
}

#[test]
fn the_newest_can_not_go_on_so_a_cut_is_a_fault() {
    let (address, server) = script(vec![known(), records(&[1], "")]);
    let client = AdminClient::reach(address, Some("t")).unwrap();
    let wanted = Wanted { limit: 5, ..Wanted::default() };
    let fault = client.each(&wanted, &mut |_| Ok(ControlFlow::Continue(()))).unwrap_err().to_string();
    assert!(fault.contains("the proxy's answer ended early"), "{fault}");
    server.join().unwrap();
}

#[test]
fn whatever_is_not_our_proxy_is_a_stranger() {
    let page = answer("404 Not Found", "<html>not here</html>");
    let unauthorized = answer("401 Unauthorized", "{\"error\":\"a token, please\"}");
    for (answer, why) in [(page, "it answers 404"), (unauthorized, "does not take the token")] {
        let (address, server) = script(vec![answer]);
        match AdminClient::reach(address, Some("t")) {
            Err(NoProxy::Stranger(said)) => assert!(said.contains(why), "{said}"),
            other => panic!("{other:?}"),
        }
        server.join().unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(matches!(AdminClient::reach(address, None), Err(NoProxy::Silent(_))));
}

#[test]
fn a_stranger_at_the_default_address_is_passed_by_and_a_chosen_one_is_a_fault() {
    let unauthorized = answer("401 Unauthorized", "{\"error\":\"a token, please\"}");
    let (address, server) = script(vec![unauthorized.clone(), unauthorized]);
    let mut config = config(&format!("[admin]\naddress = \"{address}\"\ntoken_file = \"/nowhere/token\""));
    let fault = proxy(&config).unwrap_err().to_string();
    assert!(fault.contains("look at admin.address and admin.token_file (/nowhere/token)"), "{fault}");
    if let Some(admin) = &mut config.admin {
        admin.address_from = AddressFrom::Default;
    }
    let why = proxy(&config).unwrap().unwrap_err();
    assert!(why.contains("is not the proxy of this configuration"), "{why}");
    server.join().unwrap();
}

#[test]
fn without_proxy_and_store_it_is_said_what_there_is() {
    let reach = |more: &str| {
        Reach::of(&config(&format!("[admin]\naddress = \"\"\n{more}")), Notice::Silent, Missing::Fault)
            .unwrap_err()
            .to_string()
    };
    assert!(reach("[store]\nengine = \"memory\"").contains("its records live and end with the proxy"));
    let directory = tempfile::tempdir().unwrap();
    // The token may well lie where the store will be.
    std::fs::write(directory.path().join("admin.token"), "t").unwrap();
    let fault = reach(&format!("[store]\npath = \"{}\"", directory.path().display()));
    assert!(fault.contains("there is no store at"), "{fault}");
}
