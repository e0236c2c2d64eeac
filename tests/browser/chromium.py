"""Where Chromium is, how tests start it, and what axe says of a page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

AXE = Path(__file__).parents[2] / "contracts" / "node_modules" / "axe-core" / "axe.min.js"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OFF = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup",
    "AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades", "HttpsFirstBalancedModeAutoEnable",
    "LensOverlay", "MediaRouter", "PaintHolding", "ThirdPartyStoragePartitioning", "AvoidCorsURLLoaderRestartOnRedirect",
    "OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled", "PreconnectToSearch",
)  # fmt: skip
"""Pages of the address bar, which nobody sees: half of what each new context takes. The others are those that Playwright switches off:
of two lists Chromium takes the last."""
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", f"--disable-features={','.join(OFF)}",
)  # fmt: skip
WIDE = (1280, 900)
PHONE = (390, 844)
PATIENCE_MS = 120_000
REMEDY = "no Chromium: apt-get install -y --no-install-recommends chromium"


def program() -> str | None:
    """The browser's path, where there is one."""
    return next((program_path for name in PROGRAMS if (program_path := shutil.which(name))), None)


def violations(page: Any) -> list[tuple[str, str]]:
    """Rule and first element of each violation that axe finds in a page. What passes is neither listed nor sent here."""
    page.add_script_tag(path=str(AXE))
    outcome = page.evaluate("axe.run({ resultTypes: ['violations'] }).then(found => found.violations)")
    return [(outcome["id"], outcome["nodes"][0]["html"]) for outcome in outcome]


def patient_context(browser: Any, **options: Any) -> Any:
    """Return a new context whose actions wait as long as a busy machine needs."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    return context
