//! Instants as callers write them: a date, or RFC 3339 with whatever offset.

use types::UnixMillis;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, RefOr, SchemaFormat,
        schema::{AnyOfBuilder, ObjectBuilder, Schema, Type},
    },
};
use wire::parse::FieldError;

const DAY_MS: i64 = 86_400_000;

/// Reads an instant. One before 1970 counts as the beginning of 1970: nothing here is older.
pub(super) fn instant(key: &str, text: &str) -> Result<UnixMillis, FieldError> {
    let ms = parsed(text.as_bytes()).and_then(|ms| u64::try_from(ms.max(0)).ok());
    ms.map(UnixMillis::new).ok_or_else(|| FieldError::new(key, "must be a date such as 2026-11-22, or 2026-11-22T09:30:00Z"))
}

/// Milliseconds since 1970.
fn parsed(text: &[u8]) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *date else { return None };
    let (year, month, day) = (number(&[y1, y2, y3, y4])?, number(&[m1, m2])?, number(&[d1, d2])?);
    if !(1..=12).contains(&month) || day == 0 || day > days_of(year, month) {
        return None;
    }
    let midnight = days_since_1970(year, month, day) * DAY_MS;
    let [b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = rest else {
        return rest.is_empty().then_some(midnight);
    };
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?);
    // A leap second is the beginning of the next one.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (thousandths, offset) = fraction(rest)?;
    Some(midnight + hour * 3_600_000 + minute * 60_000 + second * 1000 + thousandths - minutes_of(offset)? * 60_000)
}

/// Thousandths of a second, if there is a fraction, and what follows. More digits are dropped.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', digits @ ..] = text else { return Some((0, text)) };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if digits.is_empty() {
        return None;
    }
    let thousandths = (0..3).fold(0, |sum, place| sum * 10 + digits.get(place).map_or(0, |digit| i64::from(digit - b'0')));
    Some((thousandths, rest))
}

/// How many minutes the place is ahead of UTC.
fn minutes_of(offset: &[u8]) -> Option<i64> {
    match *offset {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
            let ahead = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
            Some(if sign == b'-' { -ahead } else { ahead })
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn days_of(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the Gregorian calendar, counted in years that begin in March, so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// How the description of the routes says it.
pub(super) enum Instant {}

impl PartialSchema for Instant {
    fn schema() -> RefOr<Schema> {
        let text = |format| ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format)));
        AnyOfBuilder::new().item(text(KnownFormat::Date)).item(text(KnownFormat::DateTime)).into()
    }
}

impl ToSchema for Instant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instant_is_read_in_each_form_that_clients_send() {
        let cases = [
            ("1970-01-01", 0),
            ("2026-11-22", 1_795_305_600_000),
            ("2026-11-22T09:30:00Z", 1_795_339_800_000),
            ("2026-11-22t09:30:00z", 1_795_339_800_000),
            ("2026-11-22 09:30:00", 1_795_339_800_000),
            ("2026-11-22T09:30:00.25Z", 1_795_339_800_250),
            ("2026-11-22T09:30:00.123456+00:00", 1_795_339_800_123),
            ("2026-11-22T11:00:00+01:30", 1_795_339_800_000),
            ("2026-11-21T23:30:00-10:00", 1_795_339_800_000),
            ("2024-02-29", 1_709_164_800_000),
            ("2000-03-01", 951_868_800_000),
            ("1999-12-31T23:59:60Z", 946_684_800_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
            ("1969-12-31", 0),
            ("0000-01-01", 0),
        ];
        for (text, ms) in cases {
            assert_eq!(instant("since", text), Ok(UnixMillis::new(ms)), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_instant_is_refused() {
        for text in [
            "",
            "2026",
            "2026-1-1",
            "2026-13-01",
            "2026-00-01",
            "2026-02-29",
            "2026-11-31",
            "2026-11-00",
            "2026-11-22T",
            "2026-11-22T09:30",
            "2026-11-22T24:00:00Z",
            "2026-11-22T09:60:00Z",
            "2026-11-22T09:30:00.Z",
            "2026-11-22T09:30:00+1:00",
            "2026-11-22T09:30:00+24:00",
            "2026-11-22T09:30:00ZZ",
            "+026-11-22",
            "2026-11-22T-9:30:00Z",
            "２026-11-22",
            "tomorrow",
        ] {
            assert!(instant("since", text).is_err(), "{text}");
        }
    }
}
