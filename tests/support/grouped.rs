//! Figures for people.

/// 1234567 is 1,234,567.
pub(crate) fn grouped(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let (first, rest) = digits.split_at((digits.len() - 1) % 3 + 1);
    let mut text = first.to_owned();
    for three in rest.as_bytes().chunks(3) {
        text.push(',');
        text.extend(three.iter().map(|digit| char::from(*digit)));
    }
    text
}
