// Walks through the page as somebody would, in a real browser against the real binary.
//
//     npm install --no-package-lock && node test.mjs ../../../../target/debug/finetuner
//
// `CHROMIUM` names another browser than /usr/bin/chromium, `SCREENSHOTS` a folder for pictures of every view, `PAGE` one with
// files of the page that are tried in place of those inside the binary (`../../src/page`).

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import axe from "axe-core";
import { chromium } from "playwright-core";
import { provide } from "./provider.mjs";
import { free, pictures, start, table } from "./server.mjs";

const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/** Milliseconds, longer than a run takes; and longer than anything else. */
const [RUN, DEADLINE] = [300_000, 45_000];

const PHONE = { width: 360, height: 740 };
const DESK = { width: 1280, height: 900 };

const binary = process.argv[2];
assert(binary && existsSync(binary), `expected the path of the binary, got ${binary}; build it with: cargo build -p finetuner-cli`);
assert(existsSync(BROWSER), `there is no browser at ${BROWSER}; install Debian's chromium, or name one with CHROMIUM`);

const server = await start(resolve(binary));
let person = { sub: "1", email: "ann@example.org", email_verified: true };
const provider = await provide(() => person);
const listen = await free();
const settings = { ADDRESS: `http://${listen}`, OPENID_ISSUER: provider.address, OPENID_CLIENT: "finetuner", OPENID_MEMBERS: "@example.org" };
const organisation = await start(resolve(binary), Object.fromEntries(Object.entries(settings).map(([name, value]) => [`FINETUNER_SERVER_${name}`, value])), listen);
let ours = [server.address];
const browser = await chromium.launch({ executablePath: BROWSER, headless: true, args: FLAGS });
const context = await browser.newContext({ viewport: DESK, colorScheme: "light", reducedMotion: "reduce", acceptDownloads: true });
const page = await context.newPage();
page.setDefaultTimeout(DEADLINE);

const complaints = [];
page.on("console", (message) => message.type() === "error" && complaints.push(`console: ${message.text()} (${message.location().url})`));
page.on("pageerror", (error) => complaints.push(`script: ${error.stack}`));
page.on("request", (request) => {
  const { origin, protocol } = new URL(request.url());
  if (protocol !== "data:" && !ours.includes(origin)) complaints.push(`request elsewhere: ${request.url()}`);
});

if (process.env.PAGE) {
  await page.route(/\/page\/|\/$/, async (route) => {
    const name = new URL(route.request().url()).pathname.split("/").at(-1) || "index.html";
    const response = await route.fetch();
    await route.fulfill({ response, body: await readFile(join(process.env.PAGE, name)) });
  });
}

const said = (text) => console.log(`ok: ${text}`);

/** Serious faults for people with screen readers, keyboards or weak eyes; and nothing wider than a phone. */
async function look(name) {
  for (const [theme, scheme] of [["light", "light"], ["dark", "dark"]]) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    for (const [size, viewport] of [["desk", DESK], ["phone", PHONE]]) {
      await page.setViewportSize(viewport);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert(wide <= viewport.width, `${name}: ${wide} pixels wide on a screen of ${viewport.width}`);
      const found = await page.evaluate(`${axe.source}; axe.run(document, {resultTypes: ["violations"]})`);
      const serious = found.violations.filter((one) => ["serious", "critical"].includes(one.impact));
      assert.deepEqual(serious.map((one) => `${name}, ${theme}, ${size}: ${one.id}: ${one.help}: ${one.nodes.map((node) => node.html).slice(0, 3).join(" ")}`), []);
      if (process.env.SCREENSHOTS) {
        await mkdir(process.env.SCREENSHOTS, { recursive: true });
        await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}-${theme}-${size}.png`), fullPage: true });
      }
    }
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.setViewportSize(DESK);
  said(`${name}: nothing serious in light and dark, on a desk and on a phone`);
}

/** Types into one of the expert's fields. */
async function expert(fields) {
  await page.getByText("Expert settings").click();
  for (const [name, value] of Object.entries(fields)) await page.getByLabel(name, { exact: true }).fill(value);
}

try {
  // Sign in: a wrong key says what to do, the right one is kept in this tab alone.
  await page.goto(server.address);
  await look("sign-in");
  await page.getByLabel("Your key").fill("ft_wrong");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").getByText("This key does not count").waitFor();
  assert(complaints.splice(0).every((one) => one.includes("401")), "a wrong key is more than a 401");
  await page.getByLabel("Your key").fill(server.key);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "No runs yet" }).waitFor();
  assert.deepEqual(await page.evaluate(() => [localStorage.length, document.cookie]), [0, ""]);
  await look("empty");
  said("signing in");

  // Keyboard alone: the first stop leads past the bar, the theme can be changed.
  await page.reload();
  await page.getByRole("heading", { name: "No runs yet" }).waitFor();
  await page.locator(".brand").focus();
  await page.keyboard.press("Shift+Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.locator("#theme").focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(16, 18, 24)");
  await page.keyboard.press("Enter");
  said("keyboard and colours");

  // A file that cannot be read says where and why.
  await page.getByRole("link", { name: "New run" }).first().click();
  await page.locator("#file").setInputFiles({ name: "broken.csv", mimeType: "text/csv", buffer: Buffer.from('text,label\nfine,a\n"never ends,b\n') });
  await page.getByRole("alert").getByText("broken.csv:3").waitFor();
  assert(complaints.splice(0).every((one) => one.includes("422")), "a broken file is more than a 422");
  await look("broken-file");

  // Of columns that have names of their own it can be said what they are.
  const products = "sku,name,about it,price\n1,shoe,black sneakers,9\n2,hat,warm and woollen,5\n3,coat,against rain,30\n4,sock,long,2\n";
  await page.locator("#file").setInputFiles({ name: "products.csv", mimeType: "text/csv", buffer: Buffer.from(products) });
  await page.getByLabel("Which column of products.csv is what?").fill("anchor=name,positive=abot it");
  await page.getByRole("button", { name: "Look again" }).click();
  await page.getByRole("alert").getByText("did you mean about it?").waitFor();
  await look("columns");
  const told = page.getByLabel("Which column of products.csv is what?");
  assert.equal(await told.inputValue(), "anchor=name,positive=abot it");
  await told.fill("anchor=name,positive=about it");
  await page.keyboard.press("Enter");
  await page.locator("#kind").getByText("Pairs that belong together").waitFor();
  await page.getByRole("cell", { name: "warm and woollen" }).waitFor();
  await told.fill("text=about it,label=price");
  await page.keyboard.press("Enter");
  await page.locator("#kind").getByText("Items with labels").waitFor();

  // Queries have the columns of the data, and wait for what they search; that may have its own columns, and until they are told
  // nothing can start.
  await page.getByText("I have separate data to measure with").click();
  await page.getByLabel("Queries").setInputFiles({ name: "asked.csv", mimeType: "text/csv", buffer: Buffer.from(products) });
  await page.getByRole("alert").getByText("no query has a relevant document").waitFor();
  assert.equal(await page.getByLabel("Which column of asked.csv is what?").inputValue(), "text=about it,label=price");
  const stock = "ref,what it is,shelf\na,black sneakers for rain,9\nb,warm gloves,5\nc,a long coat,30\nd,woollen socks,2\n";
  await page.getByLabel("What they search").setInputFiles({ name: "stock.csv", mimeType: "text/csv", buffer: Buffer.from(stock) });
  await page.getByRole("alert").getByText("stock.csv cannot be used").waitFor();
  assert(await page.locator("#kind").isHidden(), "a run can start beside a file that was not read");
  await look("columns-of-index");
  await page.getByLabel("Which column of stock.csv is what?").fill("text=what it is,label=shelf");
  await page.keyboard.press("Enter");
  await page.locator("#kind").waitFor();
  assert.equal(await page.getByLabel("Which column of stock.csv is what?").inputValue(), "text=what it is,label=shelf");
  await page.getByRole("button", { name: "Take another file" }).click();
  assert(complaints.splice(0).every((one) => one.includes("422")), "columns that do not fit are more than a 422");
  said("columns that are told");

  // A table: what it was taken for, what was noticed, its first rows.
  await page.locator("#file").setInputFiles(await table(server.folder));
  await page.locator("#kind").getByText("Pairs that belong together").waitFor();
  assert.match(await page.locator("main").innerText(), /261 rows/);
  await page.getByRole("cell", { name: /panorama photo stitcher/ }).first().waitFor();
  await page.getByText("row repeats an earlier one", { exact: false }).first().click();
  await page.getByText("packages.csv, line", { exact: false }).first().waitFor();
  await page.getByRole("radio", { name: /Find the right answer/ }).waitFor();
  assert(await page.getByRole("radio", { name: /^Mini\b/ }).isChecked());
  said("a table and what is in it");
  await look("data");
  await page.getByRole("radio", { name: /Find the right answer/ }).focus();
  await page.keyboard.press("ArrowDown");
  assert(await page.getByRole("radio", { name: /two wordings/ }).isChecked());
  await page.keyboard.press("ArrowUp");
  await page.getByLabel("Name of the run").fill("packages");
  await expert({ max_length: "32", batch_size: "16", epochs: "5", canary: "false" });

  // The run: curves move while it goes on.
  await page.getByRole("button", { name: "Start training" }).click();
  await page.getByRole("heading", { name: "packages", level: 1 }).waitFor();
  const points = () => page.locator("#charts figure:first-child svg").evaluate((picture) => Number(picture.dataset.points ?? 0));
  const until = async (what, test) => {
    for (const end = Date.now() + RUN; ; ) {
      if (await test()) return;
      assert(Date.now() < end, `waited too long for ${what}`);
      await page.waitForTimeout(100);
    }
  };
  await until("a first point", async () => (await points()) > 1);
  const first = await points();
  const running = await page.locator("#status").innerText();
  await until("more points", async () => (await points()) > first);
  assert.equal(running, "Running");
  assert.match(await page.locator("#log").innerText(), /model: `mini`/);
  await look("running");
  said("a live run");

  // Its end: the table, samples, a search, the download.
  await page.getByRole("heading", { name: "Before and after" }).waitFor({ timeout: RUN });
  const verdict = await page.locator(".verdict").innerText();
  assert.match(verdict, /mRR|better|difference|worse/);
  assert.match(await page.locator('[aria-label="Before and after"]').innerText(), /Mean reciprocal rank[\s\S]*0\.\d+ to [01]\.\d+/);
  await page.getByRole("heading", { name: "Sample queries" }).waitFor();
  await page.locator(".sample").nth(2).waitFor();
  await page.locator("#charts figure:first-child summary").click();
  await page.locator("#charts figure:first-child tbody tr").nth(4).waitFor();
  await page.locator("#charts figure:first-child summary").click();
  await page.getByLabel("Search with both models").fill("draw pictures");
  await page.keyboard.press("Enter");
  await page.locator("#found .side").nth(1).waitFor();
  assert.equal(await page.locator("#found .side li").count(), 16);
  await look("result");
  await page.getByText("Search in texts of my own").click();
  await page.getByLabel("Texts to search").fill("<b>a game of chess</b>\nan accounting program");
  await page.getByLabel("Search with both models").fill("play against the computer");
  await page.keyboard.press("Enter");
  await page.locator("#found").getByText("2 texts of your own").waitFor();
  // What somebody brought stays text.
  assert.equal(await page.locator("#found b").count(), 0);
  assert.match(await page.locator("#found .side").nth(1).locator("li").first().innerText(), /<b>a game of chess<\/b>/);
  said("a result and both models tried");
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#download").click()]);
  assert.equal(download.suggestedFilename(), "packages.zip");
  const archive = await readFile(await download.path());
  assert.equal(archive.subarray(0, 4).toString("latin1"), "PK\x03\x04");
  assert(archive.includes("packages/model.safetensors") && archive.length > 10_000_000);
  said(`a download of ${archive.length} bytes`);

  // Pictures: seen as pictures, learnt from and found.
  await page.getByRole("link", { name: "New run" }).first().click();
  await page.locator("#file").setInputFiles(await pictures(server.folder));
  await page.locator("#kind").waitFor();
  await page.locator("table img").nth(3).waitFor();
  await page.getByRole("radio", { name: /Find pictures by their description/ }).waitFor();
  await look("pictures");
  await page.getByLabel("Name of the run").fill("emoji");
  await expert({ model: "mini", image_model: "test/tower", learning_rate: "0.002", epochs: "3", canary: "false" });
  await page.getByRole("button", { name: "Start training" }).click();
  await page.locator("#status").getByText(/Finished|Failed/).waitFor({ timeout: RUN });
  assert.equal(await page.locator("#status").innerText(), "Finished", await page.locator("main").innerText());
  await page.getByRole("heading", { name: "Sample queries" }).waitFor();
  await page.locator(".sample img").first().waitFor();
  await page.getByLabel("Search with both models").fill("a yellow face");
  await page.keyboard.press("Enter");
  await page.locator("#found img").first().waitFor();
  await look("pictures-result");
  said("a zip of pictures");

  // Two runs beside each other.
  await page.getByRole("link", { name: "Runs", exact: true }).first().click();
  await page.getByLabel("Compare packages").check();
  await page.getByLabel("Compare emoji").check();
  await look("runs");
  await page.getByRole("button", { name: "Compare" }).click();
  await page.getByRole("region", { name: "Fields that differ" }).waitFor();
  assert.match(await page.getByRole("region", { name: "What came of the runs" }).innerText(), /packages\s+emoji[^]*Mean reciprocal rank/);
  await look("compare");
  said("two runs side by side");

  // The way back, and out.
  await page.goBack();
  await page.getByRole("heading", { name: "Runs" }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Your key").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.goto(`${server.address}/activate?user_code=ABCD-EFGH`);
  await look("activate");

  // Signing in at an organisation's provider: there and back, into this tab alone; and somebody whom it knows and we do not.
  ours = [organisation.address, provider.address];
  await page.goto(organisation.address);
  const elsewhere = page.getByRole("link", { name: "Sign in with your organisation" });
  await elsewhere.waitFor();
  await look("sign-in-elsewhere");
  await elsewhere.click();
  await page.getByRole("heading", { name: "No runs yet" }).waitFor();
  assert.equal(new URL(page.url()).origin, organisation.address);
  assert.deepEqual(await page.evaluate(() => [localStorage.length, document.cookie]), [0, ""]);
  assert.deepEqual(await context.cookies(), []);
  await page.getByRole("button", { name: "Sign out" }).click();
  person = { sub: "2", email: "eve@example.net", email_verified: true };
  await elsewhere.click();
  await page.getByRole("heading", { name: "Not signed in" }).waitFor();
  assert.match(await page.locator("body").innerText(), /eve@example\.net/);
  assert(complaints.splice(0).every((one) => one.includes("403")), "who may not in is more than a 403");
  await look("not-signed-in");
  said("signing in elsewhere");

  assert.deepEqual(complaints, []);
  said("no error in the console, no request elsewhere");
} catch (error) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: join(process.env.SCREENSHOTS, "failed.png"), fullPage: true }).catch(() => {});
  console.error(complaints.join("\n"));
  console.error(`the end of the server's log:\n${server.log().split("\n").slice(-30).join("\n")}`);
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
  await Promise.all([server.stop(), organisation.stop()]);
  provider.stop();
}
