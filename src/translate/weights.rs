//! Weights of cgroup v1, which docker, Kubernetes and config.json still speak in, and what the runtimes make of them on v2.
//!
//! CPU shares, 2 to 262144 and usually 1024: runc until 1.3.1 and crun until 1.22 map that range to 1 to 10000 in a line,
//! and so 1024 to 39. Later ones go through the three points 2 → 1, 1024 → 100 and 262144 → 10000 (opencontainers/cgroups#20,
//! crun#1767): the weight is 10^(l²/612 + 125·l/612 − 7/34) rounded up, l the binary logarithm of the shares.
//!
//! A blkio weight is from 10 to 1000; runc maps it to 1 to 10000 in a line (its `ConvertBlkIOToIOWeightValue`).

/// The least and the most CPU shares.
const SHARES: (u64, u64) = (2, 262_144);

/// The shares that today's runtimes make this cpu.weight of; of several the most.
pub fn shares_of(weight: u16) -> u64 {
    let (mut low, mut high) = SHARES;
    while low < high {
        let middle = (low + high).div_ceil(2);
        if weight_of(middle) <= weight {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

/// The cpu.weight that today's runtimes (runc from 1.3.2 on, crun from 1.23 on) make of CPU shares.
pub fn weight_of(shares: u64) -> u16 {
    let l = log2(shares.clamp(SHARES.0, SHARES.1) as f64);
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    // The least weight whose logarithm is not below: what rounding up gives, without a power.
    let (mut low, mut high) = (1u16, 10_000u16);
    while low < high {
        let middle = (low + high) / 2;
        if log2(f64::from(middle)) / LOG2_OF_10 + 1e-9 >= exponent {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The cpu.weight that runtimes before those make of CPU shares.
pub fn old_weight_of(shares: u64) -> u64 {
    1 + (shares.clamp(SHARES.0, SHARES.1) - 2) * 9_999 / 262_142
}

/// The blkio weight that is the nearest to this io.weight.
pub fn blkio_of(weight: u16) -> u64 {
    10 + (u64::from(weight.max(1)) - 1)
        .saturating_mul(990)
        .saturating_add(9_999 / 2)
        / 9_999
}

/// The io.weight that runc makes of a blkio weight.
pub fn io_of(blkio: u64) -> u64 {
    1 + (blkio.clamp(10, 1_000) - 10) * 9_999 / 990
}

const LOG2_OF_10: f64 = std::f64::consts::LOG2_10;

/// The binary logarithm of what is at least 1, to 40 digits behind the point. The C library's brings its tables along.
fn log2(mut of: f64) -> f64 {
    let mut whole = 0.0;
    while of >= 2.0 {
        of /= 2.0;
        whole += 1.0;
    }
    let mut digit = 1.0;
    for _ in 0..40 {
        digit /= 2.0;
        of *= of;
        if of >= 2.0 {
            of /= 2.0;
            whole += digit;
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_what_runc_and_crun_make_of_them() {
        // runc#4896 has 2000 → 77 and 170; runc#4772 has 1024 → 39; the others are the ends.
        for (shares, old, new) in [
            (2, 1, 1),
            (1024, 39, 100),
            (2000, 77, 170),
            (262_144, 10_000, 10_000),
        ] {
            assert_eq!((old_weight_of(shares), weight_of(shares)), (old, new), "{shares}");
        }
    }

    #[test]
    fn each_weight_has_shares_that_give_it() {
        for weight in 1..=10_000 {
            assert_eq!(weight_of(shares_of(weight)), weight);
        }
        assert_eq!(shares_of(100), 1024);
    }

    #[test]
    fn a_blkio_weight_is_the_nearest_that_there_is() {
        for weight in 1..=10_000u16 {
            let blkio = blkio_of(weight);
            let off = |blkio: u64| io_of(blkio).abs_diff(u64::from(weight));
            assert!((10..=1000).contains(&blkio), "{weight}: {blkio}");
            assert!(
                off(blkio) <= off(blkio + 1) && off(blkio) <= off(blkio.max(11) - 1),
                "{weight}"
            );
        }
        assert_eq!((io_of(10), io_of(1000)), (1, 10_000));
    }
}
