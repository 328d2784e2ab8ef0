//! A reactor with everything that the crate offers.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNT: AtomicU32 = AtomicU32::new(0);

isopod::serve!(setup, answer);

fn setup() {
    assert!(std::env::var("KEY").is_err());
}

fn answer(request: &mut isopod::Request, response: &mut isopod::Response) {
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    match request.path.as_str() {
        "/echo" => {
            let mut data = [0; 10_000];
            loop {
                let got = request.read(&mut data).unwrap();
                if got == 0 {
                    break;
                }
                response.write_all(&data[..got]).unwrap();
            }
        }
        "/bad" => {
            response.header("x-bad", "a\r\nset-cookie: b");
        }
        "/connect" | "/tls" => {
            let port = request.query.parse().unwrap();
            let tls = request.path == "/tls";
            let made = if tls { isopod::connect_tls } else { isopod::connect };
            let mut text = String::new();
            let done = made("localhost", port).and_then(|mut peer| {
                peer.write_all(b"hello\n")?;
                peer.read_to_string(&mut text)
            });
            write!(response, "{done:?} {text}").unwrap();
        }
        "/panic" => panic!("at the disco"),
        _ => {
            let key = std::env::var("KEY").unwrap_or_default();
            let two = request.header("x-two").unwrap_or("");
            response.status(201).header("content-type", "text/plain");
            let (path, query, host, port) = (&request.path, &request.query, &request.host, request.port);
            let (method, client) = (&request.method, &request.client);
            let text = format!("{method} {path}?{query} {host} {port} {client} {two} {key} {count}");
            response.write(text.as_bytes());
        }
    }
}
