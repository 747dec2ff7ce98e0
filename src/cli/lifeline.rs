//! The child's side of a lifeline: a standard input that ends when the parent does.

use std::io::{self, Read as _};

/// Calls `then`, in a thread of its own, when standard input ends.
pub(super) fn when_input_ends(then: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name("lifeline".to_owned())
        .spawn(move || {
            let mut sink = [0; 256];
            let mut input = io::stdin().lock();
            loop {
                match input.read(&mut sink) {
                    Ok(1..) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => break,
                }
            }
            then();
        })
        .map(|_| ())
}
