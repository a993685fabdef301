//! JSON in header fields.

use serde_json::Value;

/// Digits that a floating-point number keeps of any decimal one.
const DIGITS: usize = 15;
/// Whole numbers beyond this are not exact as floating-point numbers.
const EXACT: f64 = 9e15;

/// Whether every number came through reading as it was written; two long order
/// numbers must not become one.
pub fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) if number.is_f64() => {
            let written = number.to_string();
            let mantissa = written.split(['e', 'E']).next().unwrap_or_default();
            let digits =
                mantissa.trim_start_matches(['-', '0', '.']).bytes().filter(u8::is_ascii_digit).count();
            // Those next to zero keep fewer digits than others.
            let keeps = |number: f64| number == 0.0 || number.is_normal() && number.abs() < EXACT;
            digits <= DIGITS && number.as_f64().is_some_and(keeps)
        }
        Value::Array(values) => values.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_reading_changes_are_told() {
        let exact = |text: &str| is_exact(&serde_json::from_str(text).unwrap());
        for kept in
            ["7", "-7", "18446744073709551615", "9.5", "[0.25, {\"a\": 123456789.12}]", "\"x\"", "null"]
        {
            assert!(exact(kept), "{kept}");
        }
        for changed in
            ["18446744073709551616", "20251121055401123456789", "0.12345678901234567", "1234567890123456.71"]
        {
            assert!(!exact(changed), "{changed}");
        }
    }

    #[test]
    fn one_number_is_the_same_however_it_is_written() {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        for [one, other] in [["12345674450e-200", "1.234567445e-190"], ["2.50", "0.25e1"], ["1e2", "100.0"]] {
            assert_eq!(read(one), read(other));
            assert!(is_exact(&read(one)), "{one}");
        }
        // These two are so near to zero that they are one number when read.
        assert!(!is_exact(&read("1.00001e-320")) && !is_exact(&read("1.00002e-320")));
    }
}
