# Sourced by scripts that run the compiler: sets MIDC to the newest binary built here, building one
# if there is none. $MIDC names another.
midc_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ -z "${MIDC:-}" ]; then
    MIDC=$(ls -t "$midc_root"/target/{debug,release}/midc 2>/dev/null | head -1 || true)
    if [ -z "$MIDC" ]; then
        (cd "$midc_root" && cargo build --quiet --release)
        MIDC=$midc_root/target/release/midc
    fi
fi
export MIDC
