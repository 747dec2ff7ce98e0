//! What a driver does between two turns: the tasks of its thread, and the wait.

use super::*;

impl<C: Core, S: StoreDriver> Driver<C, S> {
    /// Lets the tasks of this thread go on, those of the store above all. True if any may have.
    pub(super) async fn run_tasks(&mut self, progress: Progress) -> bool {
        let since = self.now.since(self.breathed);
        let (any, breathes) = if let Some(tasks) = &self.tasks {
            tasks.fire();
            let any = tasks.run_others().await;
            // About once a second without need: it closes files that were dropped.
            let waited_for = tasks.needs_executor() && since >= STRETCH_WAITED_FOR;
            (any, waited_for || self.wall_due)
        } else {
            let stretch = if self.store.is_idle() {
                STRETCH
            } else {
                STRETCH_WAITED_FOR
            };
            (false, progress == Progress::Some && since >= stretch)
        };
        if breathes {
            self.breathed = self.now;
            breathe().await;
        }
        any || breathes
    }

    /// When there is something to do although nobody wakes us.
    fn deadline(&self) -> Timestamp {
        let mut deadline = self.next_tick;
        if let Some(core) = self.core.next_deadline() {
            deadline = deadline.min(core);
        }
        if let Some(drain) = self.drain_until {
            deadline = deadline.min(drain);
        }
        if self.held_frame.is_some() {
            deadline = deadline.min(self.now + MESH_RETRY);
        }
        deadline
    }

    /// Waits until there is something to do.
    pub(super) async fn rest(&mut self, parker: &mut Parker) -> io::Result<()> {
        self.publish();
        self.take_requests();
        self.shared.mesh.wake(self.shard).announce_park();
        let in_ring = self
            .tasks
            .as_ref()
            .is_some_and(|tasks| !tasks.needs_executor());
        if !in_ring {
            self.ring.signal_wake(true);
            // The kernel may raise its flag only after we have done the work it announces, and then it
            // stays up. So the flag is no reason to stay awake, but one to look once more: what comes
            // after this enter finds no work before it, and writes the eventfd.
            // epoll needs neither: what it has for us ends the park.
            if self.tasks.is_some() && self.ring.wants_enter() {
                self.ring.enter(None)?;
            }
        }
        let stop = self.drain_until.is_none() && self.shared.stop.load(Ordering::Acquire);
        let frames = !self.shared.mesh.is_empty_for(self.shard)
            || !self.shared.answers.is_empty_for(self.shard);
        let asked = self.shared.asked[self.shard].load(Ordering::Relaxed);
        if self.ring.may_rest() && !stop && !frames && !asked {
            self.counters.waits += 1;
            let from = self.clock.now();
            let mut limit = self.deadline().since(from);
            if let Some(moment) = self.tasks.as_ref().and_then(Attached::next_moment) {
                limit = limit.min(moment);
            }
            if in_ring {
                self.wait_in_ring(from, limit)?;
            } else {
                self.counters.parks += 1;
                self.tasks.as_ref().inspect(|tasks| tasks.park());
                parker.park(limit).await;
                self.tasks.as_ref().inspect(|tasks| tasks.unpark());
            }
        }
        if !in_ring {
            self.ring.signal_wake(false);
        }
        self.shared.mesh.wake(self.shard).awake();
        Ok(())
    }

    /// Waits in the ring. Where what comes, comes in less time than the shard is to gather for, it does that: turns
    /// are fewer and larger, and the next wait is as long at least. One that lasts twice as long was idle, and
    /// nobody waits for a shard that is.
    fn wait_in_ring(&mut self, from: Timestamp, limit: Duration) -> io::Result<()> {
        let gather = self.options.gather;
        if gather.is_zero() {
            return self.ring.enter(Some(limit));
        }
        let (busy, time) = match self.gathers {
            true => (2 * gather, gather),
            false => (gather, Duration::ZERO),
        };
        self.ring.gather(time);
        self.ring.enter(Some(limit))?;
        self.gathers = self.clock.now().since(from) < busy;
        Ok(())
    }
}
