//! `--device`: which backend a command runs on.

use std::str::FromStr;

use miette::miette;

use crate::plan::Precision;
use crate::runtime::backend::cuda::probe::probe;
use crate::runtime::engine::Device;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceArg {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("`{text}` is no device; use `auto`, `cpu`, `cuda` or `cuda:N`")),
        }
    }
}

impl DeviceArg {
    /// The device to use. `auto` stays on the CPU: what a run computes does not change with the machine
    /// unless it is asked to.
    ///
    /// # Errors
    /// When a GPU was asked for and cannot be used; says why and what to do.
    pub(crate) fn choose(self) -> miette::Result<Device> {
        match self {
            Self::Auto | Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => {
                let report = probe();
                let problem = report.problem.or_else(|| match report.devices.get(ordinal) {
                    Some(device) => device.problem(),
                    None => {
                        Some(format!("there is no GPU {ordinal}; the driver shows {}", report.devices.len()))
                    }
                });
                match problem {
                    None => Ok(Device::Cuda(ordinal)),
                    Some(problem) => Err(miette!(
                        code = "midc::device::cuda",
                        help = "`midc doctor` says what is missing; `--device cpu` trains without a GPU",
                        "cannot use `cuda:{ordinal}`: {problem}"
                    )),
                }
            }
        }
    }
}

/// The arithmetic that was asked for, or what a device does when nothing was said.
pub(crate) fn precision(asked: Option<&str>, device: Device) -> Precision {
    match (asked, device) {
        (Some("bf16"), _) | (None, Device::Cuda(_)) => Precision::Bf16,
        _ => Precision::F32,
    }
}
