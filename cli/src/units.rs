//! Sizes, times and rates as people write and read them. Pure.
//!
//! Sizes are binary: `64MiB`, `64M` and `67108864` are the same. Dates are UTC, so that two machines print alike.

use std::time::Duration;

const SIZE_UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `1.5 MiB`, `17 B`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < SIZE_UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && value < 99.95);
    format!("{value:.decimals$} {}", SIZE_UNITS[unit])
}

/// `12.3 MiB/s`; `-` if no time passed.
pub fn byte_rate(count: u64, time: Duration) -> String {
    if time.is_zero() {
        return "-".into();
    }
    format!("{}/s", bytes((count as f64 / time.as_secs_f64()) as u64))
}

/// `12,345 /s` of whatever was counted; `-` if no time passed.
pub fn rate(count: u64, time: Duration) -> String {
    if time.is_zero() {
        return "-".into();
    }
    let per_second = count as f64 / time.as_secs_f64();
    if per_second < 10.0 {
        return format!("{per_second:.1}/s");
    }
    format!("{}/s", number(per_second as u64))
}

/// `1,234,567`.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1 file`, `2 files`.
pub fn count(value: u64, noun: &str) -> String {
    format!("{} {noun}{}", number(value), if value == 1 { "" } else { "s" })
}

/// `340 us`, `12.3 ms`, `4.56 s`, `3m 12s`, `5h 3m`, `2d 5h`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time < Duration::from_millis(1) => format!("{} us", time.as_micros()),
        0 => format!("{:.1} ms", time.as_secs_f64() * 1e3),
        1..60 => format!("{:.2} s", time.as_secs_f64()),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A moment in nanoseconds since 1970 as `2026-11-21 12:20` (UTC).
pub fn date(ns: i64) -> String {
    let seconds = ns.div_euclid(1_000_000_000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", of_day / 3_600, of_day % 3_600 / 60)
}

/// The same to the second: `2026-11-21 12:20:05` (UTC).
pub fn moment(ns: i64) -> String {
    format!("{}:{:02}", date(ns), ns.div_euclid(1_000_000_000).rem_euclid(60))
}

/// The calendar day that is `days` after 1970-01-01 in the proleptic Gregorian calendar. Counts in eras of 400 years
/// that begin in March, so that the leap day is the last day of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let shifted = days + 719_468; // from 0000-03-01
    let era = shifted.div_euclid(ERA_DAYS);
    let of_era = shifted.rem_euclid(ERA_DAYS);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / (ERA_DAYS - 1)) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Parses `4096`, `64K`, `64KiB`, `1.5g`, `10 MB`: binary multiples, whatever the letters' case.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = (&text[..split], text[split..].trim().to_ascii_lowercase());
    let bad = || format!("{text:?} is not a size; write bytes, or a number with K, M, G or T");
    let value: f64 = digits.parse().map_err(|_| bad())?;
    let stem = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let shift = match stem {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(bad()),
    };
    if shift == 0 || !digits.contains('.') {
        let whole: u64 = digits.parse().map_err(|_| bad())?;
        return whole.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} exceeds 2^64"));
    }
    Ok((value * (1u64 << shift) as f64) as u64)
}

/// Parses `5s`, `200ms`, `2m`, `1h`, or plain milliseconds, into milliseconds.
pub fn parse_millis(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let bad = || format!("{text:?} is not a time; write milliseconds, or 200ms, 5s, 2m, 1h");
    let whole: u64 = text[..split].parse().map_err(|_| bad())?;
    let factor = match text[split..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    whole.checked_mul(factor).ok_or_else(bad)
}

/// Parses `2026-11-21 14:00` or `2026-11-21T14:00:05` (UTC) into nanoseconds since 1970.
pub fn parse_moment(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a moment; write 2026-11-21 14:00 (UTC), or 2h from now");
    let (date, time) = text.trim().trim_end_matches('Z').split_once([' ', 'T']).ok_or_else(bad)?;
    let numbers = |part: &str, by: char| -> Option<Vec<i64>> {
        part.split(by).map(|digits| digits.parse().ok().filter(|n| *n >= 0)).collect()
    };
    let date = numbers(date, '-').ok_or_else(bad)?;
    let time = numbers(time, ':').ok_or_else(bad)?;
    let (&[year, month, day], &[hour, minute, ref rest @ ..]) = (&date[..], &time[..]) else {
        return Err(bad());
    };
    let second = match rest {
        [] => 0,
        [second] => *second,
        _ => return Err(bad()),
    };
    let fits = (1970..=2200).contains(&year) && hour < 24 && minute < 60 && second < 60;
    // The day is looked for near where it must be: leap days and long months move it by less than 120 days.
    let near = (year - 1970) * 365 + (month - 1) * 30;
    let days = (near..near + 120).find(|&days| civil(days) == (year, month, day));
    let days = days.filter(|_| fits).ok_or_else(bad)?;
    Ok((days * 86_400 + hour * 3_600 + minute * 60 + second) * 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_printed() {
        for ns in [0, 951_782_400, 951_868_800, 1_795_262_399, 7_000_000_000] {
            let ns = ns * 1_000_000_000;
            assert_eq!(parse_moment(&moment(ns)), Ok(ns), "{}", moment(ns));
        }
        assert_eq!(parse_moment("1970-01-02T01:00Z"), Ok(90_000_000_000_000));
        for bad in ["2026-02-30 10:00", "2026-01-01", "2026-1-1 24:00", "x y", "1969-12-31 23:00"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, value) in [
            ("0", 0),
            ("17", 17),
            ("64K", 65_536),
            ("64 KiB", 65_536),
            ("1.5m", 3 << 19),
            ("2GB", 2 << 30),
        ] {
            assert_eq!(parse_bytes(text), Ok(value), "{text}");
        }
        for text in ["", "x", "1X", "-1", "1.2.3", "99999999T"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_print_with_one_decimal_where_it_tells_something() {
        assert_eq!(
            [0, 1023, 1024, 1536, 200 << 20, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "200 MiB", "16.0 EiB"]
        );
    }

    #[test]
    fn times_read_and_print() {
        assert_eq!(parse_millis("5s"), Ok(5_000));
        assert_eq!(parse_millis("250"), Ok(250));
        assert!(parse_millis("5 weeks").is_err());
        assert_eq!(duration(Duration::from_micros(340)), "340 us");
        assert_eq!(duration(Duration::from_millis(4_560)), "4.56 s");
        assert_eq!(duration(Duration::from_secs(192)), "3m 12s");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_827_640_000_000_000), "2000-02-29 12:34");
        assert_eq!(date(-1), "1969-12-31 23:59");
        assert_eq!([0, -1].map(moment), ["1970-01-01 00:00:00", "1969-12-31 23:59:59"]);
        assert_eq!(date(4_107_542_400_000_000_000), "2100-03-01 00:00");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(rate(12_345, Duration::from_secs(1)), "12,345/s");
    }
}
