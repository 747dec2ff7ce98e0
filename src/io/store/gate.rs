//! Keeps the opening and the removal of one segment apart.
//!
//! The library looks at the path of a file it has just opened, and does not bear that it is gone by then.

/// Which segments are being opened, and which one is being removed.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// One entry an opening under way: at most as many as there are readers.
    opening: Vec<u32>,
    removing: Option<u32>,
}

impl Gate {
    /// Whether `segment` may be opened now; [`Gate::opened`] follows then, whatever came of it.
    pub(crate) fn open(&mut self, segment: u32) -> bool {
        let free = self.removing != Some(segment);
        if free {
            self.opening.push(segment);
        }
        free
    }

    /// An opening is over.
    pub(crate) fn opened(&mut self, segment: u32) {
        if let Some(at) = self.opening.iter().position(|&other| other == segment) {
            self.opening.swap_remove(at);
        }
    }

    /// Nobody opens `segment` from now on. True when nobody is at it still: it may go.
    pub(crate) fn remove(&mut self, segment: u32) -> bool {
        self.removing = Some(segment);
        !self.opening.contains(&segment)
    }

    /// The removal is over.
    pub(crate) const fn removed(&mut self) {
        self.removing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_goes_when_all_who_open_it_are_done_and_nobody_begins_meanwhile() {
        let mut gate = Gate::default();
        assert!(gate.open(1) && gate.open(1) && gate.open(2));
        assert!(!gate.remove(1));
        assert!(!gate.open(1), "it is about to go");
        assert!(gate.open(3), "others are not concerned");
        gate.opened(1);
        assert!(!gate.remove(1), "one is still at it");
        gate.opened(1);
        assert!(gate.remove(1));
        gate.removed();
        assert!(gate.open(1), "a later one of that name may be opened");
        assert!(!gate.remove(2));
    }
}
