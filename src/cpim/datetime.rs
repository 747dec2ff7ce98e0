//! `DateTime` values (RFC 3862 section 4.4, the profile of RFC 3339). Layer 1.

use crate::base::time::UnixMillis;

/// Appends `when` as `2026-11-22T05:58:01Z`, whole seconds, UTC. Years beyond 9999 write 9999.
pub fn encode(when: UnixMillis, out: &mut Vec<u8>) {
    const LAST: u64 = 253_402_300_799;
    let secs = when.as_secs().min(LAST);
    let (days, second) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00Z";
    for (at, width, value) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, second / 3600),
        (14, 2, second / 60 % 60),
        (17, 2, second % 60),
    ] {
        let mut rest = value;
        for slot in text[at..at + width].iter_mut().rev() {
            *slot = b'0' + u8::try_from(rest % 10).expect("below ten");
            rest /= 10;
        }
    }
    out.extend_from_slice(&text);
}

/// Year, month and day of the day `days` after 1970-01-01, in the Gregorian calendar.
///
/// Counts in eras of 400 years that begin on a 1 March, so that the leap day comes last.
const fn civil(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    let day = days + EPOCH;
    let era = day / ERA_DAYS;
    let of_era = day % ERA_DAYS;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + (month <= 2) as u64;
    (year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(secs: u64) -> String {
        let mut out = Vec::new();
        encode(UnixMillis::from_secs(secs), &mut out);
        assert_eq!(out.len(), 20);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_moments_are_written_right() {
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(text(1_795_327_081), "2026-11-22T05:58:01Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(text(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn every_day_of_five_centuries_follows_the_one_before() {
        const MONTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..182_000 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let len = MONTHS[usize::try_from(month).unwrap() - 1] + u64::from(leap && month == 2);
            day += 1;
            if day > len {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
