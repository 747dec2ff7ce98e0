//! Reading `message/imdn+xml` (RFC 5438 section 11.1): which message, and what became of it.
//! Layer 1.
//!
//! A scanner for this one vocabulary: elements, comments and processing instructions, bounded in
//! length and depth; a document type declaration or CDATA is refused. Namespace prefixes are
//! skipped, attributes are not looked at, and text is taken as written.

/// Largest notification read, octets.
pub(super) const IMDN_BYTES_MAX: usize = 16 * 1024;
/// Deepest element nesting.
pub(super) const IMDN_DEPTH_MAX: usize = 16;

/// Why a notification was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImdnError {
    /// `<!DOCTYPE` or another declaration.
    Declaration,
    /// No message-id or no status.
    Incomplete,
    /// Longer or deeper than the limits of this module.
    TooLong,
    /// Not well formed.
    WellFormedness,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImdnStatus {
    /// Delivery: on the device. The only positive delivery (DLV-2).
    Delivered,
    /// Display: shown.
    Displayed,
    /// Any kind: an error.
    Error,
    /// Delivery: failed.
    Failed,
    /// Any kind: forbidden.
    Forbidden,
    /// Processing: processed.
    Processed,
    /// Processing: stored.
    Stored,
    /// A status of an extension.
    Other,
}

/// One notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Imdn<'a> {
    /// `imdn.Message-ID` of the message, as written.
    pub message_id: &'a [u8],
    /// What became of it.
    pub status: ImdnStatus,
}

/// Reads a notification.
///
/// # Errors
/// [`ImdnError`]; nothing of it is used.
pub fn parse(bytes: &[u8]) -> Result<Imdn<'_>, ImdnError> {
    if bytes.len() > IMDN_BYTES_MAX {
        return Err(ImdnError::TooLong);
    }
    let mut reader = Reader::default();
    let mut at = 0;
    while let Some(open) = memchr::memchr(b'<', &bytes[at..]) {
        let text = &bytes[at..at + open];
        at += open;
        if reader.depth == 0 && !text.trim_ascii().is_empty() && !is_bom(text) {
            return Err(ImdnError::WellFormedness);
        }
        let rest = &bytes[at..];
        let markup_len = markup_len(rest)?;
        let markup = &rest[..markup_len];
        match markup {
            [b'<', b'!' | b'?', ..] => {}
            [b'<', b'/', name @ .., b'>'] => reader.close(local(name.trim_ascii_end()), text)?,
            [b'<', tag @ .., b'/', b'>'] => {
                reader.open(local(name_of(tag)))?;
                reader.close(local(name_of(tag)), b"")?;
            }
            [b'<', tag @ .., b'>'] => reader.open(local(name_of(tag)))?,
            [..] => return Err(ImdnError::WellFormedness),
        }
        at += markup_len;
    }
    if reader.depth != 0 || !bytes[at..].trim_ascii().is_empty() {
        return Err(ImdnError::WellFormedness);
    }
    match (reader.message_id, reader.status) {
        (Some(message_id), Some(status)) => Ok(Imdn { message_id, status }),
        (None | Some(_), _) => Err(ImdnError::Incomplete),
    }
}

#[derive(Default)]
struct Reader<'a> {
    names: [&'a [u8]; IMDN_DEPTH_MAX],
    depth: usize,
    message_id: Option<&'a [u8]>,
    status: Option<ImdnStatus>,
}

impl<'a> Reader<'a> {
    fn open(&mut self, name: &'a [u8]) -> Result<(), ImdnError> {
        if self.depth == IMDN_DEPTH_MAX {
            return Err(ImdnError::TooLong);
        }
        if name.is_empty() || self.depth == 0 && name != b"imdn" {
            return Err(ImdnError::WellFormedness);
        }
        self.names[self.depth] = name;
        self.depth += 1;
        if let [b"imdn", kind, b"status", status] = &self.names[..self.depth] {
            self.status = self.status.or_else(|| read_status(kind, status));
        }
        Ok(())
    }

    /// `text` stands before the end tag.
    fn close(&mut self, name: &[u8], text: &'a [u8]) -> Result<(), ImdnError> {
        let depth = self.depth.checked_sub(1).ok_or(ImdnError::WellFormedness)?;
        if self.names[depth] != name {
            return Err(ImdnError::WellFormedness);
        }
        if depth == 1 && name == b"message-id" && self.message_id.is_none() {
            let id = text.trim_ascii();
            self.message_id = (!id.is_empty()).then_some(id);
        }
        self.depth = depth;
        Ok(())
    }
}

fn read_status(kind: &[u8], status: &[u8]) -> Option<ImdnStatus> {
    Some(match (kind, status) {
        (b"delivery-notification", b"delivered") => ImdnStatus::Delivered,
        (b"delivery-notification", b"failed") => ImdnStatus::Failed,
        (b"display-notification", b"displayed") => ImdnStatus::Displayed,
        (b"processing-notification", b"processed") => ImdnStatus::Processed,
        (b"processing-notification", b"stored") => ImdnStatus::Stored,
        (
            b"delivery-notification" | b"display-notification" | b"processing-notification",
            b"error",
        ) => ImdnStatus::Error,
        (
            b"delivery-notification" | b"display-notification" | b"processing-notification",
            b"forbidden",
        ) => ImdnStatus::Forbidden,
        (b"delivery-notification" | b"display-notification" | b"processing-notification", _) => {
            ImdnStatus::Other
        }
        (_, _) => return None,
    })
}

/// Length of the markup that `bytes` starts with.
fn markup_len(bytes: &[u8]) -> Result<usize, ImdnError> {
    let closer: &[u8] = match bytes {
        [b'<', b'!', b'-', b'-', ..] => b"-->",
        [b'<', b'!', ..] => return Err(ImdnError::Declaration),
        [b'<', b'?', ..] => b"?>",
        [..] => return tag_len(bytes),
    };
    let body = bytes.get(4..).ok_or(ImdnError::WellFormedness)?;
    let end = memchr::memmem::find(body, closer).ok_or(ImdnError::WellFormedness)?;
    Ok(4 + end + closer.len())
}

/// Length of a tag; a `>` inside a quoted attribute does not end it.
fn tag_len(bytes: &[u8]) -> Result<usize, ImdnError> {
    let mut quote = None;
    for (at, &c) in bytes.iter().enumerate() {
        match (quote, c) {
            (None, b'>') => return Ok(at + 1),
            (None, b'"' | b'\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, b'<') if at > 0 => return Err(ImdnError::WellFormedness),
            (_, _) => {}
        }
    }
    Err(ImdnError::WellFormedness)
}

/// The name at the start of a tag's inside.
fn name_of(tag: &[u8]) -> &[u8] {
    let end = tag
        .iter()
        .position(|c| c.is_ascii_whitespace())
        .unwrap_or(tag.len());
    &tag[..end]
}

/// A name without its prefix.
fn local(name: &[u8]) -> &[u8] {
    match memchr::memchr(b':', name) {
        Some(colon) => &name[colon + 1..],
        None => name,
    }
}

fn is_bom(text: &[u8]) -> bool {
    text.trim_ascii() == b"\xef\xbb\xbf"
}
