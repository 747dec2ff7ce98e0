//! SIP: codecs (layer 1), then transactions, dialogs and the session timer (layer 2).

pub mod dialog;
pub mod feature;
pub mod framing;
pub mod header;
pub mod message;
pub mod overload;
pub mod parser;
pub mod response;
pub mod scan;
pub mod session_timer;
pub mod template;
pub mod transaction;
pub mod uri;
