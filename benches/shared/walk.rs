//! A registration document, and quick-xml walking it.

use quick_xml::events::Event;
use quick_xml::name::ResolveResult;

/// Two devices under two identities: four contact rows, 2,980 octets.
pub(crate) const TWO_CONTACTS: &[u8] = include_bytes!("../../src/reginfo/cases/two_devices.xml");

/// What any reader of XML must do: resolve names, decode attributes and text. Keeps only their lengths.
pub(crate) fn read_quick_xml(bytes: &[u8]) -> usize {
    let mut reader = quick_xml::NsReader::from_reader(bytes);
    let mut total = 0;
    loop {
        match reader.read_resolved_event() {
            Ok((namespace, Event::Start(tag) | Event::Empty(tag))) => {
                total += usize::from(matches!(namespace, ResolveResult::Bound(_)));
                for attribute in tag.attributes().flatten() {
                    total += attribute.value.len();
                }
            }
            Ok((_, Event::Text(text))) => total += text.len(),
            Ok((_, Event::Eof)) | Err(_) => return total,
            Ok(_) => {}
        }
    }
}
