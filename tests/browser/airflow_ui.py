"""Airflow's pages as a person uses them: by what they read on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, unquote

from playwright.sync_api import FrameLocator, Locator, Page, expect

_OTHER_OPTIONS = "Advanced Options"
"""A section of the form that is Airflow's own."""


class TriggerForm:
    """The form that *Trigger* opens."""

    def __init__(self, dialog: Locator) -> None:
        self.dialog = dialog

    def sections(self) -> list[str]:
        """Return the names of the sections that the parameters are in, from top to bottom."""
        return [
            name
            for name in self.dialog.locator("[data-scope=accordion][data-part=item-trigger]").all_inner_texts()
            if name != _OTHER_OPTIONS
        ]

    def open(self, section: str) -> Locator:
        """Open a section; Airflow closes the others. Return what is in it."""
        header = self.dialog.get_by_role("button", name=section, exact=True)
        header.click()
        expect(header).to_have_attribute("aria-expanded", "true")
        return self.dialog.locator(f'[id="{header.get_attribute("aria-controls")}"]')

    def expect_titles(self, section: str, titles: Sequence[str]) -> None:
        """Open a section, and wait until these are the titles of the parameters in it.

        :raises AssertionError: they do not come to be.
        """
        labels = self.open(section).locator("label[data-part=label]")
        # a star marks those that must be filled in
        expect(labels).to_have_text([re.compile(rf"^{re.escape(title)}\s*\*?$") for title in titles])
        expect(labels.first).to_be_visible()

    def fill(self, parameter: str, value: str) -> None:
        """Type a value into the field of a parameter, whose section is open."""
        # by the field's name, because Airflow does not tie the label to it
        self.dialog.locator(f"input[name=element_{parameter}]").fill(value)

    def submit(self) -> None:
        """Press *Trigger*."""
        self.dialog.get_by_role("button", name="Trigger", exact=True).click()


class AirflowUI:
    """Airflow in a browser window.

    :param url: where Airflow is.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url

    def log_in(self, user: str, password: str) -> None:
        """Log in on the page to which Airflow sends whom it does not know."""
        self.page.goto(self.url)
        sign_in = self.page.get_by_role("button", name="Sign in")
        self.page.get_by_role("textbox", name="Username").fill(user)
        self.page.get_by_role("textbox", name="Password").fill(password)
        sign_in.click()
        expect(self.page.get_by_role("heading", name="Welcome")).to_be_visible()

    def open_dag(self, dag_id: str) -> None:
        """Go to a DAG through the list of all."""
        self.page.goto(f"{self.url}/dags")
        self.page.get_by_role("link", name=dag_id, exact=True).click()
        # The list has buttons to trigger DAGs too: it must be gone.
        expect(self.page.get_by_role("link", name="Overview")).to_be_visible()

    def open_trigger_form(self) -> TriggerForm:
        """Press the DAG's *Trigger* button."""
        self.page.get_by_role("button", name="Trigger Dag").click()
        form = TriggerForm(self.page.get_by_role("dialog"))
        expect(form.dialog.get_by_role("button", name=_OTHER_OPTIONS)).to_be_visible()
        return form

    def triggered(self, form: TriggerForm) -> str:
        """Submit the form; return the path of the run to which Airflow leads, ``dags/…/dagRuns/…``."""
        form.submit()
        self.page.wait_for_url("**/dags/*/runs/*")
        _, dag_id, _, run_id = self.page.url.removeprefix(f"{self.url}/").split("/")
        return f"dags/{dag_id}/dagRuns/{unquote(run_id)}"

    def open_task(self, run: str, task_id: str) -> None:
        """Go to the page of a task instance."""
        _, dag_id, _, run_id = run.split("/")
        self.page.goto(f"{self.url}/dags/{dag_id}/runs/{quote(run_id)}/tasks/{task_id}")
        expect(self.page.get_by_role("link", name="Logs", exact=True)).to_be_visible()

    def open_tab(self, name: str) -> FrameLocator:
        """Open a tab that a plugin adds to the page; return what is in it."""
        self.page.get_by_role("link", name=name, exact=True).click()
        return self.page.frame_locator(f'iframe[title="{name}"]')

    def follow(self, link: Locator) -> None:
        """Click a link and go where it leads in this window, whether or not Airflow would open another for it."""
        link.evaluate("link => link.removeAttribute('target')")
        link.click()

    def address_of(self, frame: FrameLocator) -> str:
        """Return where the page in a tab comes from."""
        return str(frame.owner.evaluate("frame => frame.src"))
