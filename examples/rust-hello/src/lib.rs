//! cargo build --release --target wasm32-wasip1
//! cp target/wasm32-wasip1/release/hello.wasm . && isopod deploy

use std::io::Read;
use std::sync::Mutex;

static SQUARES: Mutex<Vec<u64>> = Mutex::new(Vec::new());

isopod::serve!(setup, answer);

/// Once, when the app is deployed: every instance starts with it done.
fn setup() {
    SQUARES.lock().unwrap().extend((0..100_000).map(|number| number * number));
}

fn answer(request: &mut isopod::Request, response: &mut isopod::Response) {
    response.header("content-type", "text/plain");
    if request.method == "POST" {
        let mut text = String::new();
        match request.read_to_string(&mut text) {
            Ok(_) => response.write(text.to_uppercase().as_bytes()),
            Err(error) => response.status(400).write(error.to_string().as_bytes()),
        };
    } else if let Some(number) = request.path.strip_prefix("/square/") {
        let squares = SQUARES.lock().unwrap();
        match number.parse::<usize>().ok().and_then(|at| squares.get(at)) {
            Some(square) => response.write(format!("{square}\n").as_bytes()),
            None => response.status(404).write(b"not below 100000\n"),
        };
    } else {
        let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello from Rust!".into());
        response.write(format!("{greeting}\n").as_bytes());
    }
}
