//! Sizes as people write them: `64MiB`, `1g`, `1500000`.

/// Units by their names in small letters; those of a thousand are told by their `b` alone.
const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("k", 1 << 10),
    ("kib", 1 << 10),
    ("kb", 1_000),
    ("m", 1 << 20),
    ("mib", 1 << 20),
    ("mb", 1_000_000),
    ("g", 1 << 30),
    ("gib", 1 << 30),
    ("gb", 1_000_000_000),
    ("t", 1 << 40),
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
];

/// Bytes of a size; the error says what a size looks like.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim().bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.trim().split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let form = "a size is a whole number of bytes, or one with K, M, G or T, as in 64MiB";
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let Some(factor) = factor.filter(|_| digits > 0) else {
        return Err(match digits {
            0 => form.to_owned(),
            _ => format!("{unit:?} is no unit: {form}"),
        });
    };
    // All that does not fit is larger than any memory.
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        Some(0) => Err("a size of nothing".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("no machine has that many bytes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        let cases = [
            ("1", 1),
            ("1500000", 1_500_000),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1g", 1 << 30),
            ("2GB", 2_000_000_000),
            ("8k", 8 << 10),
            (" 7 B ", 7),
            ("1TiB", 1 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Ok(bytes), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_size_is_told_from_one() {
        for text in ["", "MiB", "-1", "1.5G", "64 MiBs", "0", "0k"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for (text, part) in [
            ("16EiB", "\"eib\" is no unit"),
            ("99999999999999999999", "no machine"),
            ("99999999999g", "no machine"),
            ("16777216TiB", "no machine"),
        ] {
            let told = parse(text).expect_err("no size");
            assert!(told.contains(part), "{text}: {told}");
        }
    }
}
