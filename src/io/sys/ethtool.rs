//! What a network device says of itself by `SIOCETHTOOL` (linux/ethtool.h). All its structures are words of
//! 32 bits, so that is what goes to the kernel and comes back.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Words of one feature's name.
const NAME_WORDS: usize = 8;
/// Most features asked for; the kernel has 64 at the time of writing.
const FEATURES_MAX: u32 = 512;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GCOALESCE: u32 = 0x0e;
const GRINGPARAM: u32 = 0x10;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
/// The set of strings that holds the names of features.
const SET_FEATURES: u32 = 4;

/// Words that say of 32 features: which can be changed, which are wanted, which are on, which never change.
pub(in crate::io) type FeatureBlock = [u32; 4];

/// Names of the features that this kernel knows, in the order of their bits; some have none.
pub(in crate::io) fn feature_names(
    socket: BorrowedFd<'_>,
    device: &str,
) -> io::Result<Vec<String>> {
    let count = feature_count(socket, device)?;
    let mut words = vec![0; 3 + count as usize * NAME_WORDS];
    words[..3].copy_from_slice(&[GSTRINGS, SET_FEATURES, count]);
    // SAFETY: three words, then room for as many names as this kernel has, by its own word; that number is
    // built into it.
    unsafe { call(socket, device, &mut words) }?;
    let names = words[3..].chunks_exact(NAME_WORDS).map(|name| {
        let octets: Vec<u8> = name.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let end = octets.iter().position(|&octet| octet == 0);
        String::from_utf8_lossy(&octets[..end.unwrap_or(octets.len())]).into_owned()
    });
    Ok(names.collect())
}

fn feature_count(socket: BorrowedFd<'_>, device: &str) -> io::Result<u32> {
    // The mask of sets has 64 bits; behind it comes a number for each set.
    let mask = (1_u64 << SET_FEATURES).to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes([mask[at], mask[at + 1], mask[at + 2], mask[at + 3]]);
    let mut words = [GSSET_INFO, 0, half(0), half(4), 0];
    // SAFETY: four words, and one for the one set that is asked for.
    unsafe { call(socket, device, &mut words) }?;
    let known = (words[2], words[3]) != (0, 0);
    if !known || words[4] == 0 || words[4] > FEATURES_MAX {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(words[4])
}

/// The state of `count` features.
pub(in crate::io) fn features(
    socket: BorrowedFd<'_>,
    device: &str,
    count: usize,
) -> io::Result<Vec<FeatureBlock>> {
    let blocks = count.div_ceil(32);
    let mut words = vec![0; 2 + 4 * blocks];
    words[0] = GFEATURES;
    words[1] = u32::try_from(blocks).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: two words, and the blocks that the second one counts; the kernel writes no more of them.
    unsafe { call(socket, device, &mut words) }?;
    let blocks = words[2..].chunks_exact(4);
    Ok(blocks.filter_map(|block| block.try_into().ok()).collect())
}

/// Turns the feature with bit `bit`, of `count`, on or off. Needs the right to administrate the network.
pub(in crate::io) fn set_feature(
    socket: BorrowedFd<'_>,
    device: &str,
    (bit, count): (usize, usize),
    on: bool,
) -> io::Result<()> {
    let blocks = count.div_ceil(32);
    let mut words = vec![0; 2 + 2 * blocks];
    words[0] = SFEATURES;
    words[1] = u32::try_from(blocks).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flag = 1 << (bit % 32);
    // Which are meant, and of them, which are to be on.
    words[2 + 2 * (bit / 32)] = flag;
    words[3 + 2 * (bit / 32)] = if on { flag } else { 0 };
    // SAFETY: two words, and the blocks that the second one counts, which the kernel only reads.
    let refused = unsafe { call(socket, device, &mut words) }?;
    if refused == 0 {
        return Ok(());
    }
    // What depends on another feature is only wished for while that one is off.
    Err(io::ErrorKind::Unsupported.into())
}

/// Descriptors of the receive and the send ring: `[in use, at most]` each.
pub(in crate::io) fn rings(socket: BorrowedFd<'_>, device: &str) -> io::Result<[[u32; 2]; 2]> {
    let mut words = [0; 9];
    words[0] = GRINGPARAM;
    // SAFETY: nine words, as `struct ethtool_ringparam` has.
    unsafe { call(socket, device, &mut words) }?;
    Ok([[words[5], words[1]], [words[8], words[4]]])
}

/// Microseconds that a receive waits for others, and whether the device chooses them itself.
pub(in crate::io) fn coalescing(socket: BorrowedFd<'_>, device: &str) -> io::Result<(u32, bool)> {
    let mut words = [0; 23];
    words[0] = GCOALESCE;
    // SAFETY: twenty-three words, as `struct ethtool_coalesce` has.
    unsafe { call(socket, device, &mut words) }?;
    Ok((words[1], words[10] != 0))
}

/// One question; the first word says which.
///
/// # Safety
/// `words` has room for whatever the kernel writes in answer to its first word.
unsafe fn call(socket: BorrowedFd<'_>, device: &str, words: &mut [u32]) -> io::Result<i32> {
    // SAFETY: all-zero is a valid ifreq: an empty name and a null pointer.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    // The last octet stays zero.
    let (_, room) = request.ifr_name.split_last_mut().expect("16 octets");
    if device.is_empty() || device.len() > room.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (out, octet) in room.iter_mut().zip(device.bytes()) {
        *out = libc::c_char::from_ne_bytes([octet]);
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the request is whole, and by our contract what it leads to is long enough; both live through
    // the call.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(outcome)
}
