//! What a sync promised is there after the file system was shut down under it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::io::exec::file::is_alive;
use crate::io::exec::{File, OpenOptions, run, sync_directory};

/// Octets of a write.
const WRITE: usize = 64 << 10;
/// Most writes of a round.
const WRITES_MAX: usize = 1000;
/// Cuts of each kind. Without the question after the sync one in ten loses a write.
const ROUNDS: u32 = 25;
/// Octets of a disk: the least an XFS can have, with a margin.
const DISK: u64 = 512 << 20;

static DISKS: AtomicUsize = AtomicUsize::new(0);

/// A file system in an image, mounted; both go with it.
struct Disk {
    home: PathBuf,
}

impl Disk {
    /// `None`, said aloud, where it cannot be made.
    fn new(make: &str) -> Option<Self> {
        let number = DISKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("volley-cuts-{}-{number}", std::process::id());
        let disk = Self {
            home: std::env::temp_dir().join(name),
        };
        fs::create_dir_all(disk.mount_point()).unwrap();
        let image = fs::File::create(disk.home.join("image")).unwrap();
        image.set_len(DISK).unwrap();
        let made = succeeds(Command::new(make).arg("-q").arg(disk.home.join("image")));
        let mounted = made.and_then(|()| disk.mount());
        if let Err(why) = mounted {
            println!("SKIPPED: cuts of power of {make}: {why}");
            return None;
        }
        Some(disk)
    }

    fn mount_point(&self) -> PathBuf {
        self.home.join("mount")
    }

    fn mount(&self) -> Result<(), String> {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(self.home.join("image"));
        succeeds(mount.arg(self.mount_point()))
    }

    fn unmount(&self) -> Result<(), String> {
        succeeds(Command::new("umount").arg(self.mount_point()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.unmount();
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn succeeds(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn content(number: usize) -> u8 {
    u8::try_from(number % 250).unwrap() + 1
}

/// Writes until one fails; `durable` says how many did not.
async fn write(path: PathBuf, durable: Arc<AtomicUsize>) {
    let options = OpenOptions {
        write: true,
        create_new: true,
        ..OpenOptions::default()
    };
    let file: File = options.open(&path).await.unwrap();
    file.allocate((WRITES_MAX * WRITE) as u64).await.unwrap();
    file.sync().await.unwrap();
    sync_directory(path.parent().unwrap()).await.unwrap();
    for number in 0..WRITES_MAX {
        let mut buffer = file.buffer(WRITE);
        buffer.as_bytes_mut().fill(content(number));
        let at = (number * WRITE) as u64;
        if file.write_durably(buffer, at).await.is_err() {
            break;
        }
        durable.store(number + 1, Ordering::SeqCst);
    }
    let _ = file.close().await;
}

/// One cut while a thread of its own writes, by glommio or by the helper thread: writes that were said to be
/// durable and are gone, and writes that were said to be durable.
fn cut(disk: &Disk, by_glommio: bool, round: u32) -> (usize, usize) {
    let path = disk.mount_point().join("file");
    let durable = Arc::new(AtomicUsize::new(0));
    let writes = write(path.clone(), Arc::clone(&durable));
    let (mount, seen) = (disk.mount_point(), Arc::clone(&durable));
    let cutter = std::thread::spawn(move || {
        for _ in 0..10_000 {
            if seen.load(Ordering::SeqCst) > 0 {
                break;
            }
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_micros(u64::from(round * 733 % 9000)));
        crate::io::cut_power(&mount).unwrap();
    });
    if by_glommio {
        glommio::LocalExecutor::default().run(writes);
    } else {
        run(writes).unwrap();
    }
    cutter.join().unwrap();
    disk.unmount().unwrap();
    disk.mount().unwrap();
    let durable = durable.load(Ordering::SeqCst);
    let lost = lost(&path, durable);
    fs::remove_file(&path).unwrap();
    (lost, durable)
}

fn lost(path: &Path, durable: usize) -> usize {
    let bytes = fs::read(path).unwrap();
    (0..durable)
        .filter(|&number| {
            let written = bytes.get(number * WRITE..(number + 1) * WRITE);
            written.is_none_or(|written| written.iter().any(|&octet| octet != content(number)))
        })
        .count()
}

#[test]
fn what_a_sync_promised_is_there_after_the_file_system_was_shut_down_under_it() {
    for make in ["mkfs.ext4", "mkfs.xfs"] {
        let Some(disk) = Disk::new(make) else {
            continue;
        };
        for by_glommio in [false, true] {
            let mut durable = 0;
            for round in 0..ROUNDS {
                let (lost, promised) = cut(&disk, by_glommio, round);
                assert_eq!(lost, 0, "{make}, glommio {by_glommio}, of {promised}");
                durable += promised;
            }
            assert!(durable > 0, "nothing was written, so nothing was tried");
        }
    }
}

#[test]
fn a_file_system_that_was_shut_down_is_not_alive() {
    let Some(disk) = Disk::new("mkfs.ext4") else {
        return;
    };
    let file = fs::File::create_new(disk.mount_point().join("file")).unwrap();
    is_alive(&file).unwrap();
    crate::io::cut_power(&disk.mount_point()).unwrap();
    is_alive(&file).unwrap_err();
}
