"use strict";
const $ = id => document.getElementById(id);
const view = $("view"), pen = view.getContext("2d");
const REFINE = matchMedia("(pointer: coarse)").matches
  ? "Tap what is missing. To take something away, choose “Doesn’t belong” and tap it. Save when it fits."
  : "Click what is missing, right-click what is too much. Save when it fits.";
let pictures = [], now = -1;  // {name, mask, done, error, notes, clicks, kept: the saved clicks}; the open one
let photo = null, shape = null;  // its pixels; its mask, a canvas that is opaque on the object
let positive = true, version = 0, working = false;
const clicksOf = p => JSON.stringify(p.clicks);
const canvasOf = (width, height) => Object.assign(document.createElement("canvas"), {width, height});
const changed = p => p.clicks.length > 0 && clicksOf(p) !== p.kept;
const tell = (text, kind = "") => Object.assign($("tell"), {textContent: text, className: kind});

async function ask(url, body) {
  const post = {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)};
  const answer = await fetch(url, body && post).catch(() => {
    throw Error("The program does not answer; it may have been closed. Start it again, then reload this page.");
  });
  if (answer.ok) return answer;
  throw Error((await answer.json().catch(() => ({error: `The answer was ${answer.status}.`}))).error);
}

function refreshList() {
  const done = pictures.filter(p => p.done).length;
  $("count").textContent = `${done} of ${pictures.length} done`;
  Object.assign($("bar"), {max: pictures.length || 1, value: done});
  pictures.forEach((p, k) => {
    const row = $("list").children[k].firstChild;
    row.dataset.mark = p.error ? "!" : changed(p) ? "●" : p.done ? "✓" : "";
    row.className = p.error ? "broken" : changed(p) ? "changed" : "";
    $("list").children[k].lastChild.textContent = p.notes.join("; ");
    row.title = p.error || (changed(p) ? "not saved yet" : p.done ? "saved" : "");
    row.ariaLabel = [p.name, row.title].filter(Boolean).join(", ");
    k === now ? row.setAttribute("aria-current", "true") : row.removeAttribute("aria-current");
  });
  const p = pictures[now];
  $("undo").disabled = $("clear").disabled = !photo || !p.clicks.length;
  $("save").disabled = !photo || !changed(p);
  $("back").disabled = now <= 0;
  $("next").disabled = now >= pictures.length - 1;
  $("go").disabled = $("save").disabled && $("next").disabled;
  $("go").textContent = $("save").disabled ? "Next" : "Save and next";
  [$("yes").ariaPressed, $("no").ariaPressed] = [positive, !positive];
}

function draw() {
  view.hidden = !photo;
  if (!photo) return;
  const room = $("stage").getBoundingClientRect(), dpr = devicePixelRatio || 1;
  const fit = Math.max(0.01, Math.min((room.width - 24) / photo.width, (room.height - 24) / photo.height));
  Object.assign(view.style, {width: `${photo.width * fit}px`, height: `${photo.height * fit}px`});
  const [w, h] = [photo.width, photo.height].map(side => Math.max(1, Math.round(side * fit * dpr)));
  Object.assign(view, {width: w, height: h});
  pen.drawImage(photo, 0, 0, w, h);
  if (shape) {
    const body = canvasOf(w, h);
    body.getContext("2d").drawImage(shape, 0, 0, w, h);
    pen.globalAlpha = $("opacity").value / 100;
    pen.drawImage(tinted(body, "#1d9bf0", 0), 0, 0);
    pen.globalAlpha = 1;
    for (const [color, width] of [["#06213d", 2.6], ["#fff", 1.4]])
      pen.drawImage(tinted(body, color, width * dpr), 0, 0);
  }
  const r = 8 * dpr;
  for (const c of pictures[now].clicks) {
    const x = (c.x + 0.5) / photo.width * w, y = (c.y + 0.5) / photo.height * h;
    const sign = new Path2D(`M${x - r / 2} ${y}h${r}` + (c.positive ? `M${x} ${y - r / 2}v${r}` : ""));
    const disk = new Path2D();
    disk.arc(x, y, r, 0, 7);
    Object.assign(pen, {fillStyle: c.positive ? "#17a34a" : "#e03131", strokeStyle: "#fff", lineWidth: 2 * dpr});
    pen.fill(disk), pen.stroke(disk), pen.stroke(sign);
  }
}

// A mask in one colour, or only a line of a width around it.
function tinted(mask, color, width) {
  const layer = canvasOf(mask.width, mask.height), ink = layer.getContext("2d");
  for (let k = 0; k < (width ? 16 : 1); k++)
    ink.drawImage(mask, width * Math.cos(k * Math.PI / 8), width * Math.sin(k * Math.PI / 8));
  if (width) { ink.globalCompositeOperation = "destination-out"; ink.drawImage(mask, 0, 0); }
  ink.globalCompositeOperation = "source-in";
  ink.fillStyle = color;
  ink.fillRect(0, 0, layer.width, layer.height);
  return layer;
}

async function toShape(answer) {
  const bitmap = await createImageBitmap(await answer.blob());
  const canvas = canvasOf(bitmap.width, bitmap.height), ink = canvas.getContext("2d", {willReadFrequently: true});
  ink.drawImage(bitmap, 0, 0);
  const pixels = ink.getImageData(0, 0, canvas.width, canvas.height), data = pixels.data;
  let some = false;
  for (let k = 0; k < data.length; k += 4) { data[k + 3] = data[k] ? 255 : 0; some ||= data[k] > 0; }
  ink.putImageData(pixels, 0, 0);
  return some ? canvas : null;
}

// Brings mask and sentence up to the present clicks; changes made meanwhile are seen by the loop.
async function update() {
  version++;
  refreshList();
  draw();
  if (working) return;
  working = true;
  for (let seen = -1; seen !== version && photo;) {
    seen = version;
    const index = now, p = pictures[index];
    let mask = null, text = "Click on the thing that you want to outline.", kind = "";
    if (p.clicks.length || p.done) tell("Thinking …", "busy");
    try {
      if (p.clicks.length) {
        mask = await toShape(await ask("/click", {index, name: p.name, clicks: p.clicks}));
        text = mask ? REFINE : "Nothing found there. Click on another part of the thing.";
      } else if (p.done) {
        mask = await toShape(await ask(`/mask/${index}`));
        text = "This one is saved. To outline it anew, click on the thing.";
      }
    } catch (error) { [text, kind] = [error.message, "error"]; }
    if (seen !== version && index !== now) continue;
    if (!kind) shape = mask;  // after an error what was there stays
    tell(text, kind);
    draw();
  }
  working = false;
}

async function open(index) {
  if (index < 0 || index >= pictures.length || index === now) return;
  now = index;
  photo = shape = null;
  tell("Loading …", "busy");
  update();
  $("list").children[index].scrollIntoView({block: "nearest"});
  const p = pictures[index];
  try {
    const answer = await ask(`/image/${index}`);
    const picture = await createImageBitmap(await answer.blob());
    Object.assign(p, {error: "", notes: JSON.parse(answer.headers.get("X-Notes"))});
    if (index === now) photo = picture, update();
  } catch (error) {
    p.error = error.message;
    refreshList();
    if (index === now) tell(`This image cannot be opened. ${error.message}`, "error");
  }
}

async function save() {  // whether nothing is left to save
  const index = now, p = pictures[index], kept = clicksOf(p);
  if (!photo || !changed(p)) return true;
  tell("Saving …", "busy");
  try {
    const {saved} = await (await ask("/save", {index, name: p.name, clicks: p.clicks})).json();
    Object.assign(p, {kept, done: true});
    if (index === now) tell(`Saved: ${saved}`);
  } catch (error) { tell(`Not saved: ${p.name}. ${error.message}`, "error"); }
  refreshList();
  return p.kept === kept;
}

function add(event, belongs) {
  event.preventDefault();
  const box = view.getBoundingClientRect();
  const pixel = (at, side) => Math.min(side - 1, Math.max(0, Math.floor(at * side)));
  const x = pixel((event.clientX - box.left) / box.width, photo.width);
  const y = pixel((event.clientY - box.top) / box.height, photo.height);
  pictures[now].clicks.push({x, y, positive: belongs});
  update();
}

function keep(end) {  // takes clicks back: those from `end` on
  if (photo) pictures[now].clicks = pictures[now].clicks.slice(0, end);
  update();
}
const undo = () => keep(-1), clear = () => keep(0);
const back = () => open(now - 1), next = () => open(now + 1);
const go = async () => { if (await save()) next(); };
const choose = value => { positive = value; refreshList(); };
const swap = () => choose(!positive), yes = () => choose(true), no = () => choose(false);

view.onclick = e => { if (!e.ctrlKey) add(e, positive && !e.shiftKey); };
view.oncontextmenu = e => { e.pointerType === "touch" ? e.preventDefault() : add(e, false); };
Object.entries({yes, no, undo, clear, back, next, save, go}).forEach(([id, f]) => $(id).onclick = f);
$("opacity").oninput = draw;
new ResizeObserver(draw).observe($("stage"));
onbeforeunload = e => { if (pictures.some(changed)) e.preventDefault(); };
onkeydown = e => {
  const key = e.key.length === 1 ? e.key.toLowerCase() : e.key, control = e.ctrlKey || e.metaKey;
  const action = (control ? {z: undo, s: save} : {
    ArrowLeft: back, ArrowUp: back, ArrowRight: next, ArrowDown: next, Enter: go, s: save, x: swap,
  })[key];
  const own = key.startsWith("Arrow") ? "INPUT" : key === "Enter" ? "BUTTON" : "";  // keys they use
  if (!action || e.altKey || e.target.tagName === own) return;
  e.preventDefault();
  action();
};

ask("/images").then(answer => answer.json()).then(found => {
  pictures = found.map(p => ({...p, clicks: [], kept: "[]"}));
  $("list").append(...pictures.map((p, k) => {
    const row = document.createElement("li");
    const button = Object.assign(document.createElement("button"), {textContent: p.name, onclick: () => open(k)});
    row.append(button, document.createElement("small"));
    return row;
  }));
  if (!pictures.length) throw Error("There are no images here.");
  $("where").textContent = `Masks are saved like ${pictures[0].mask}`;
  open(Math.max(0, pictures.findIndex(p => !p.done)));
}).catch(error => tell(error.message, "error"));
