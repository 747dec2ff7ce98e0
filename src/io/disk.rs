//! A file system of its own on a loop device, that can be cut off or filled: for tests and `volley chaos`. Needs
//! root.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

/// Tries to unmount: a process that was killed may still be on its way out.
const UNMOUNTS_MAX: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "XFS",
        }
    }
}

#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    /// A file system in memory around the image, which has less room than the image promises.
    thin: Option<PathBuf>,
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

fn shown(error: &io::Error) -> String {
    error.to_string()
}

impl Disk {
    /// A disk of `mib` MiB in `directory`.
    pub fn new(directory: &Path, kind: FileSystem, mib: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount a file system".to_owned());
        }
        let disk = Self {
            image: directory.join(format!("{}.img", kind.name())),
            mount: directory.join(format!("{}.mnt", kind.name())),
            thin: None,
        };
        disk.make(kind, mib)?;
        Ok(disk)
    }

    /// A disk of `mib` MiB that has far less to give: writes that the file system has promised room for
    /// fail underneath it, once [`Disk::set_room`] is used up.
    pub fn thin(directory: &Path, mib: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount a file system".to_owned());
        }
        let around = directory.join("thin.tmp");
        fs::create_dir_all(&around).map_err(|error| shown(&error))?;
        let size = format!("size={}m", 2 * mib);
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&around))?;
        let disk = Self {
            image: around.join("thin.img"),
            mount: directory.join("thin.mnt"),
            thin: Some(around),
        };
        disk.make(FileSystem::Ext4, mib)?;
        Ok(disk)
    }

    /// Lets a thin disk take `mib` MiB more than it has, or everything.
    pub fn set_room(&self, mib: Option<u64>) -> Result<(), String> {
        let around = self.thin.as_ref().ok_or("not a thin disk")?;
        let size = match mib {
            Some(mib) => {
                let space = rustix::fs::statvfs(around).map_err(|error| shown(&error.into()))?;
                let used = (space.f_blocks - space.f_bfree).saturating_mul(space.f_frsize);
                format!("remount,size={}k", (used + (mib << 20)) >> 10)
            }
            None => "remount,size=2g".to_owned(),
        };
        run(Command::new("mount").args(["-o", &size]).arg(around))
    }

    fn make(&self, kind: FileSystem, mib: u64) -> Result<(), String> {
        fs::create_dir_all(&self.mount).map_err(|error| shown(&error))?;
        let image = File::create(&self.image).map_err(|error| shown(&error))?;
        image.set_len(mib << 20).map_err(|error| shown(&error))?;
        let mut make = match kind {
            FileSystem::Ext4 => Command::new("mkfs.ext4"),
            FileSystem::Xfs => Command::new("mkfs.xfs"),
        };
        let quiet = match kind {
            FileSystem::Ext4 => ["-q", "-F"],
            FileSystem::Xfs => ["-q", "-f"],
        };
        run(make.args(quiet).arg(&self.image))?;
        self.mount()
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    pub fn mount(&self) -> Result<(), String> {
        // What is freed in a thin disk is to be room again.
        let options = match self.thin {
            Some(_) => "loop,discard",
            None => "loop",
        };
        run(Command::new("mount")
            .args(["-o", options])
            .arg(&self.image)
            .arg(&self.mount))?;
        match self.thin {
            Some(_) => self.split_requests(),
            None => Ok(()),
        }
    }

    /// Makes every request to the device of this disk as small as its file's pages. A loop device reports
    /// a write that its file took only in part as done; one page is taken whole or not at all.
    fn split_requests(&self) -> Result<(), String> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(|error| shown(&error))?;
        let here = self.mount.to_string_lossy();
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == Some(&*here));
        let device = line.and_then(|line| line.split(' ').next()?.strip_prefix("/dev/"));
        let device = device.ok_or("the loop device is not among the mounts")?;
        let limit = format!("/sys/block/{device}/queue/max_sectors_kb");
        fs::write(&limit, "4").map_err(|error| format!("{limit}: {error}"))
    }

    pub fn unmount(&self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..UNMOUNTS_MAX {
            match run(Command::new("umount").arg(&self.mount)) {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
        Err(last)
    }

    /// Cuts the file system off at once: nothing that its journal has not written is there later.
    pub fn cut(&self) -> Result<(), String> {
        super::sys::cut::cut_power(&self.mount).map_err(|error| shown(&error))
    }

    /// Takes all space but `mib` MiB.
    pub fn fill(&self, mib: u64) -> Result<(), String> {
        let file = File::create(self.mount.join("filler")).map_err(|error| shown(&error))?;
        let space = fstatvfs(&file).map_err(|error| shown(&error.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let taken = free.saturating_sub(mib << 20);
        fallocate(&file, FallocateFlags::empty(), 0, taken.max(1))
            .map_err(|error| shown(&error.into()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
        let _ = fs::remove_file(&self.image);
        let _ = fs::remove_dir(&self.mount);
        if let Some(around) = &self.thin {
            let _ = run(Command::new("umount").arg(around));
            let _ = fs::remove_dir(around);
        }
    }
}
