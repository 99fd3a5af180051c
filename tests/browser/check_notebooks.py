"""Open every notebook in JupyterLab in a real browser, run it and move its controls: ``make browser``.

Fails on a red output, an error in the browser's console, a link that leads nowhere, a picture that does not load, an
output wider or taller than a laptop's screen, a control that does not redraw its picture, or whose picture is missing
before anything is run, and a notebook that is marked as modified by being opened, or saved by being run. It works on a
copy of the tracked files, so that outputs do not touch the checkout. Not part of ``make test``: it needs Debian's
chromium, or another one, and minutes.
"""

import argparse
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from playwright.sync_api import ElementHandle, Page, sync_playwright
from playwright.sync_api import TimeoutError as Timeout

PROJECT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LAPTOP = {"width": 1366, "height": 768}
# All cells in the page, not only those on the screen; no news from outside; no long wait for autosave, were it on.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosaveInterval": 5},
}
OPENED = "() => window.jupyterapp?.shell.currentWidget?.context?.isReady"
IDLE = "() => window.jupyterapp.shell.currentWidget.context.sessionContext.session?.kernel?.status === 'idle'"
MODIFIED = "() => window.jupyterapp.shell.currentWidget.context.model.dirty"
VERSION = """async () => {
    const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
    return (await kernel.info).language_info.version;
}"""
RUN = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
CELLS = "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells"
STOP = "() => window.jupyterapp.serviceManager.sessions.shutdownAll()"
LINKS = "anchors => [...new Set(anchors.map(anchor => anchor.href))]"
UNLOADED = "pictures => pictures.filter(one => !one.complete || !one.naturalWidth).map(one => one.src.slice(0, 200))"
WIDE = "outputs => outputs.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText.slice(0, 200))"
# The page goes on below the last cell.
HEIGHT = """one => Math.max(...[...one.querySelectorAll('.jp-Cell')].map(cell => cell.getBoundingClientRect().bottom))
    - one.getBoundingClientRect().top + one.scrollTop"""
TALL = """([cells, height]) => cells.filter(one => one.clientHeight > height)
    .map(one => `${one.clientHeight} px: ${one.innerText.slice(0, 100)}`)"""
# A redrawn picture is a new element, without the mark, even where it looks the same. What is not possible is said above
# the picture, which then stays.
MARK = """cell => {
    cell.querySelector('.jp-RenderedImage img').dataset.old = 'yes';
    return cell.querySelector('.widget-html').innerText;
}"""
CHANGED = """([cell, said]) => cell.querySelector('.jp-RenderedImage img:not([data-old])')
    || cell.querySelector('.widget-html').innerText !== said"""
AT_END = """one => one.tagName === 'SELECT' ? one.selectedIndex === one.length - 1
    : one.getAttribute('aria-valuenow') === one.getAttribute('aria-valuemax')"""
PATH = "() => window.jupyterapp.shell.currentWidget?.context?.path"
BACK = "([path]) => { window.jupyterapp.commands.execute('docmanager:open', { path }); }"


@contextmanager
def lab(folder: Path, python: str) -> Iterator[str]:
    """JupyterLab on a folder; yields its address, without the token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / ".lab-settings"
    for plugin, values in SETTINGS.items():
        file = settings / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    token = secrets.token_hex(16)
    command = [python, "-m", "jupyterlab", "--no-browser", f"--port={port}", f"--notebook-dir={folder}"]
    command += ["--LabApp.expose_app_in_browser=True", f"--IdentityProvider.token={token}"]
    command += ["--allow-root"] if os.getuid() == 0 else []
    # Settings as of make lab, but for those above and without the user's own; kernels take the package from the copy.
    environment = os.environ | {"PYTHONPATH": str(folder), "JUPYTERLAB_SETTINGS_DIR": str(settings)}
    environment["JUPYTER_CONFIG_PATH"] = str(folder / "workflow" / "jupyter")
    with (folder / ".lab.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api/status?token={token}", server, folder / ".lab.log")
        yield f"{address}/lab/tree/notebooks/{{name}}?reset&token={token}"
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    sys.exit(f"JupyterLab did not start: {log.read_text()[-2000:]}")


def check(page: Page, url: str, file: Path, shots: Path | None) -> list[str]:
    """What is wrong with one notebook, after running it; empty if nothing is."""
    before, found, said = file.read_bytes(), [], []
    page.on("console", lambda message: said.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(f"page: {error}"))
    page.goto(url)
    page.wait_for_function(OPENED, timeout=120_000)
    page.wait_for_function(IDLE, timeout=120_000)
    page.wait_for_timeout(1000)
    # JupyterLab stores the version of Python, so another one than the notebook's always modifies it.
    if page.evaluate(MODIFIED) and page.evaluate(VERSION) == stored_version(file):
        found.append("marked as modified by being opened")
    found += pictures_without_a_run(page)
    page.evaluate(RUN)
    found += red_outputs(page.evaluate(CELLS))
    found += move_controls(page)
    page.wait_for_timeout(1000)
    found += [f"picture not loaded: {source}" for source in page.eval_on_selector_all(".jp-Notebook img", UNLOADED)]
    found += [f"wider than the screen: {text}" for text in page.eval_on_selector_all(".jp-OutputArea-output", WIDE)]
    outputs = page.query_selector_all(".jp-Cell-outputArea")
    found += [f"taller than the screen, {text}" for text in page.evaluate(TALL, [outputs, LAPTOP["height"]])]
    if shots:
        photograph(page, shots, file.stem)
    found += said  # before other notebooks are opened and left, which is an error on the console
    found += dead_links(page)
    page.evaluate(STOP)
    return found + ["saved on its own: autosave is on"] * (file.read_bytes() != before)


def stored_version(file: Path) -> str:
    """The version of Python that executed a notebook."""
    metadata = json.loads(file.read_text(encoding="utf-8"))["metadata"]
    return metadata.get("language_info", {}).get("version", "")


def red_outputs(cells: list[dict]) -> list[str]:
    """Errors, and what was written to stderr."""
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    errors = [f"{output['ename']}: {output['evalue']}" for output in outputs if output["output_type"] == "error"]
    return errors + [f"stderr: {''.join(output['text'])}" for output in outputs if output.get("name") == "stderr"]


def move_controls(page: Page) -> list[str]:
    """Move every slider and menu, there and back; says how long the slower of the two new pictures takes."""
    found = []
    for cell in page.query_selector_all(".jp-CodeCell:has(.noUi-handle)"):
        for control in cell.query_selector_all(".widget-inline-hbox:has(.noUi-handle, select)"):
            name = control.query_selector("label").inner_text()
            moved = control.query_selector(".noUi-handle, select")
            there = -1 if moved.evaluate(AT_END) else 1
            try:
                taken = max(redrawn(page, cell, moved, way) for way in (there, -there))
                print(f"  {name}: redraws in {taken:.2f} s", flush=True)
            except Timeout:
                found.append(f"moving '{name}' does not redraw its picture")
    return found


def redrawn(page: Page, cell: ElementHandle, moved: ElementHandle, way: int) -> float:
    """Move a slider or a menu by one, up (1) or down (-1); seconds until the cell's picture is drawn again."""
    before = cell.evaluate(MARK)
    moved.scroll_into_view_if_needed()
    start = time.perf_counter()
    if moved.evaluate("one => one.tagName") == "SELECT":
        moved.select_option(index=moved.evaluate("one => one.selectedIndex") + way)
    else:
        moved.focus()
        moved.press("ArrowRight" if way > 0 else "ArrowLeft")
    page.wait_for_function(CHANGED, arg=[cell, before], timeout=30_000)
    return time.perf_counter() - start


def pictures_without_a_run(page: Page) -> list[str]:
    """Whatever has controls shows, before anything is run, its last picture, and the controls or what they need."""
    found = []
    for cell in page.query_selector_all(".jp-CodeCell"):
        said = cell.inner_text()
        if "explore_" in said and "import" in said:
            controls = cell.query_selector(".noUi-handle") or "The controls need a kernel" in said
            if not (controls and cell.query_selector(".jp-RenderedImage img")):
                found.append("a stored picture with controls does not show before it is run")
    return found


def dead_links(page: Page) -> list[str]:
    """Links to files of the project that JupyterLab cannot serve, or does not open.

    One to a notebook and all to other files are followed; those to other sites are not.
    """
    here, name = page.url.partition("/lab/")[0], page.evaluate(PATH)
    links = page.eval_on_selector_all(".jp-Notebook a[href]:not(.jp-InternalAnchorLink)", LINKS)
    ours = dict.fromkeys(link.partition("#")[0] for link in links if link.startswith(here))
    dead = [link for link in ours if "/files/" not in link or page.request.get(link).status >= 400]
    alive = {unquote(link.partition("/files/")[2].partition("?")[0]): link for link in ours if link not in dead}
    found = [f"dead link: {link}" for link in dead]
    followed = [path for path in alive if not path.endswith(".ipynb")] + [path for path in alive if "ipynb" in path][:1]
    for path in followed:
        page.query_selector(f'.jp-Notebook a[href^="{alive[path]}"]').click()
        try:
            page.wait_for_function(f"([path]) => ({PATH})() === path && ({OPENED})()", arg=[path], timeout=60_000)
        except Timeout:
            found.append(f"does not open: {path}")
        page.evaluate(BACK, [name])
        page.wait_for_function(f"([path]) => ({PATH})() === path", arg=[name], timeout=60_000)
    return found


def photograph(page: Page, folder: Path, name: str) -> None:
    """The whole notebook, in pictures of 2,200 pixels of its height."""
    folder.mkdir(parents=True, exist_ok=True)
    page.set_viewport_size({"width": LAPTOP["width"], "height": 2300})
    page.wait_for_timeout(500)
    scroller = page.query_selector(".jp-WindowedPanel-outer")
    for part, top in enumerate(range(0, round(scroller.evaluate(HEIGHT)), 2150)):
        scroller.evaluate("(one, top) => one.scrollTo(0, top)", top)
        page.wait_for_timeout(300)
        page.screenshot(path=folder / f"{name}_{part}.png")
    page.set_viewport_size(LAPTOP)


def copy_of_the_project(folder: Path) -> None:
    """The tracked files, and the new ones that git does not ignore, as they are now."""
    listed = ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, folder / name)


def main() -> None:
    """Check the notebooks one by one; the exit status is 1 if anything is wrong with one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="the interpreter with JupyterLab and the package")
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of the notebooks' names; all by default")
    parser.add_argument("--shots", type=Path, help="folder for pictures of the whole notebooks")
    given = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("no chromium found: install one, as with apt-get install chromium")
    names = [path.name for path in sorted((PROJECT / "notebooks").glob("*.ipynb"))]
    names = [name for name in names if not given.only or name.startswith(tuple(given.only))]
    wrong, begin = 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        copy_of_the_project(Path(folder))
        with lab(Path(folder).resolve(), given.python) as address:
            window = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"] * (os.getuid() == 0))
            for name in names:
                page, start = window.new_page(viewport=LAPTOP), time.perf_counter()
                found = check(page, address.format(name=name), Path(folder) / "notebooks" / name, given.shots)
                page.close()
                wrong += bool(found)
                print(f"{'WRONG' if found else 'fine'}: {name}, {time.perf_counter() - start:.0f} s", flush=True)
                print("".join(f"  {one[:500]}\n" for one in found), end="", flush=True)
            window.close()
    print(f"{len(names) - wrong} of {len(names)} notebooks are fine; {time.perf_counter() - begin:.0f} s")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
