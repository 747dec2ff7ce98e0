//! A file system that is cut off from its disk.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Shuts the file system that `directory` lies on down at once, as a power cut would: what its own
/// journal has not written is lost, and every later operation fails. For tests; needs root.
///
/// # Errors
/// What the system said; a file system that cannot do it is "inappropriate ioctl".
pub(in crate::io) fn cut_power(directory: &Path) -> io::Result<()> {
    /// `FS_IOC_SHUTDOWN`, which ext4 and XFS share: `_IOR('X', 125, __u32)`.
    const SHUTDOWN: libc::Ioctl = 0x8004_587d;
    /// Do not write the log first.
    const NO_LOG_FLUSH: u32 = 2;
    let file = File::open(directory)?;
    let how = NO_LOG_FLUSH;
    // SAFETY: the descriptor is open, and the kernel reads one u32, which lives through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SHUTDOWN, &raw const how) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
