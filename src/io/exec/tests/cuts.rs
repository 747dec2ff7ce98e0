//! What a sync promised is there after the file system was shut down under it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::io::disk::{Disk, FileSystem};
use crate::io::exec::file::is_alive;
use crate::io::exec::{File, OpenOptions, run, sync_directory};

/// Octets of a write.
const WRITE: usize = 64 << 10;
/// Most writes of a round.
const WRITES_MAX: usize = 1000;
/// Cuts of each kind. Without the question after the sync one in ten loses a write.
const ROUNDS: u32 = 25;
/// Size of a disk, MiB: the least an XFS can have, with a margin.
const DISK_MIB: u64 = 512;

/// A directory that goes away empty.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).ok();
    }
}

/// A disk in a directory of its own, to be dropped in this order; `None`, said aloud, where there is none to be
/// had.
fn disk(kind: FileSystem, name: &str) -> Option<(Disk, Home)> {
    let name = format!("volley-{name}-{}-{}", kind.name(), std::process::id());
    let home = Home(std::env::temp_dir().join(name));
    match Disk::new(&home.0, kind, DISK_MIB) {
        Ok(disk) => Some((disk, home)),
        Err(why) => {
            println!("SKIPPED: cuts of power of {}: {why}", kind.name());
            None
        }
    }
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
    let path = disk.path().join("file");
    let durable = Arc::new(AtomicUsize::new(0));
    let writes = write(path.clone(), Arc::clone(&durable));
    let cut = || {
        for _ in 0..10_000 {
            if durable.load(Ordering::SeqCst) > 0 {
                break;
            }
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_micros(u64::from(round * 733 % 9000)));
        disk.cut().unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(cut);
        if by_glommio {
            glommio::LocalExecutor::default().run(writes);
        } else {
            run(writes).unwrap();
        }
    });
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
    for kind in [FileSystem::Ext4, FileSystem::Xfs] {
        let Some((disk, _home)) = disk(kind, "cuts") else {
            continue;
        };
        for by_glommio in [false, true] {
            let mut durable = 0;
            for round in 0..ROUNDS {
                let (lost, promised) = cut(&disk, by_glommio, round);
                assert_eq!(lost, 0, "{kind:?}, glommio {by_glommio}, of {promised}");
                durable += promised;
            }
            assert!(durable > 0, "nothing was written, so nothing was tried");
        }
    }
}

#[test]
fn a_file_system_that_was_shut_down_is_not_alive() {
    let Some((disk, _home)) = disk(FileSystem::Ext4, "dead") else {
        return;
    };
    let file = fs::File::create_new(disk.path().join("file")).unwrap();
    is_alive(&file).unwrap();
    disk.cut().unwrap();
    is_alive(&file).unwrap_err();
}
