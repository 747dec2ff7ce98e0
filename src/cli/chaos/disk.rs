//! A file system of its own on a loop device, that can be cut off or filled. Needs root.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

/// Tries to unmount: a process that was killed may still be on its way out.
const UNMOUNTS_MAX: u32 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "XFS",
        }
    }
}

#[derive(Debug)]
pub(super) struct Disk {
    image: PathBuf,
    mount: PathBuf,
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
    pub(super) fn new(directory: &Path, kind: FileSystem, mib: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount a file system".to_owned());
        }
        let disk = Self {
            image: directory.join(format!("{}.img", kind.name())),
            mount: directory.join(format!("{}.mnt", kind.name())),
        };
        fs::create_dir_all(&disk.mount).map_err(|error| shown(&error))?;
        let image = File::create(&disk.image).map_err(|error| shown(&error))?;
        image.set_len(mib << 20).map_err(|error| shown(&error))?;
        let mut make = match kind {
            FileSystem::Ext4 => Command::new("mkfs.ext4"),
            FileSystem::Xfs => Command::new("mkfs.xfs"),
        };
        let quiet = match kind {
            FileSystem::Ext4 => ["-q", "-F"],
            FileSystem::Xfs => ["-q", "-f"],
        };
        run(make.args(quiet).arg(&disk.image))?;
        disk.mount()?;
        Ok(disk)
    }

    pub(super) fn path(&self) -> &Path {
        &self.mount
    }

    pub(super) fn mount(&self) -> Result<(), String> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.mount))
    }

    pub(super) fn unmount(&self) -> Result<(), String> {
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
    pub(super) fn cut(&self) -> Result<(), String> {
        volley::io::cut_power(&self.mount).map_err(|error| shown(&error))
    }

    /// Takes all space but `mib` MiB.
    pub(super) fn fill(&self, mib: u64) -> Result<(), String> {
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
    }
}
