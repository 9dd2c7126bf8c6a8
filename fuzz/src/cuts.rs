//! Bytes in pieces.

/// `bytes` in pieces of one to seventeen bytes, always the same ones for the same bytes.
pub fn cut(bytes: &[u8]) -> Vec<&[u8]> {
    // FNV-1a, and xorshift from there on.
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    }) | 1;
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (piece, behind) = rest.split_at(rest.len().min((state % LONGEST) as usize + 1));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

const LONGEST: u64 = 17;
