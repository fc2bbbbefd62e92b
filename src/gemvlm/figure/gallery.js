"use strict";
// Builds each browser of the page from its JSON. Data only ever becomes text or an attribute, never markup.
const COLOURS = ["#e63946", "#1d70b8", "#f7a000", "#14966e", "#8c46be", "#f06eaa"];
const SVG = "http://www.w3.org/2000/svg";
const colour = (number) => COLOURS[number % COLOURS.length];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// Words with a coloured chip in the place of each <place:N>.
function words(text) {
  return text.split(/(<place:\d+>)/).filter((part) => part).map((part) => {
    const found = /^<place:(\d+)>$/.exec(part);
    if (!found) return part;
    return make("span", { class: "place", style: `background:${colour(+found[1])}` }, String(+found[1] + 1));
  });
}

// A white line under a coloured one reads on any picture.
function stroked(tag, attributes, number, width = 2.5) {
  return [["#fff", width + 2.5], [colour(number), width]].map(([stroke, thick]) =>
    shape(tag, { ...attributes, stroke, "stroke-width": thick }));
}

function drawn(mark, number) {
  const v = mark.values;
  if (mark.kind === "box") {
    return stroked("rect", { x: v[0], y: v[1], width: Math.max(0, v[2] - v[0]), height: Math.max(0, v[3] - v[1]) }, number);
  }
  const points = [];
  for (let i = 0; i + 1 < v.length; i += 2) points.push([v[i], v[i + 1]]);
  if (mark.kind === "path" && points.length > 1) {
    const line = stroked("polyline", { points: points.map((p) => p.join(",")).join(" ") }, number);
    return [...line, ...dot(points[0], number, 6), ...dot(points[points.length - 1], number, 12)];
  }
  return points.flatMap((point) => dot(point, number, 11));
}

// A line of no length with round ends is a dot that stays round in a stretched drawing.
function dot([x, y], number, width) {
  return stroked("line", { x1: x, y1: y, x2: x, y2: y }, number, width);
}

function frame(shown, alone) {
  const canvas = make("div", { class: "canvas" });
  if (shown.picture) canvas.append(picture(shown.picture));
  const figures = [make("figure", {}, canvas)];
  if (shown.depth) {
    const depth = make("div", { class: "canvas" }, picture(shown.depth));
    if (alone) figures.push(make("figure", {}, depth));
    else figures[0].append(depth);
  }
  if (shown.note) figures[figures.length - 1].append(make("figcaption", {}, shown.note));
  return { figures, canvas };
}

function picture(source) {
  const image = make("img", { src: source, alt: "", loading: "lazy" });
  image.addEventListener("load", () => { if (image.naturalWidth < 200) image.classList.add("pixels"); });
  return image;
}

function show(exchange, canvases) {
  for (const canvas of canvases) {
    canvas.querySelectorAll("svg, .area").forEach((node) => node.remove());
    if (exchange.area) canvas.append(make("img", { class: "area", src: exchange.area, alt: "" }));
    if (!exchange.marks.length) continue;
    const drawing = shape("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none" });
    exchange.marks.forEach((mark, number) => drawing.append(...drawn(mark, number)));
    canvas.append(drawing);
  }
}

function article(card, wanted) {
  const frames = card.pictures.map((shown) => frame(shown, card.pictures.length === 1));
  const one = card.pictures.length === 1 && frames[0].figures.length === 2;
  const grid = make("div", { class: one ? "frames one" : "frames" }, ...frames.flatMap((f) => f.figures));
  const canvases = frames.map((f) => f.canvas);
  const talk = wanted ? card.talk.filter((exchange) => exchange.family === wanted) : card.talk;
  const list = make("ol");
  let chosen = null;
  for (const exchange of talk) {
    const item = make("li", {}, make("q", {}, ...words(exchange.question)), make("b", {}, ...words(exchange.answer)),
      make("small", { "data-family": exchange.family }, exchange.note));
    const choose = () => {
      list.querySelectorAll(".chosen").forEach((node) => node.classList.remove("chosen"));
      item.classList.add("chosen");
      show(exchange, canvases);
    };
    item.tabIndex = 0;
    item.addEventListener("click", choose);
    item.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(); });
    if (!chosen && (exchange.marks.length || exchange.area)) (chosen = choose)();
    list.append(item);
  }
  const header = make("header", {}, make("h4", {}, card.title), make("small", {}, card.note));
  const node = make("article", talk.length ? {} : { class: "tile" }, header, grid);
  if (talk.length) node.append(list);
  return node;
}

function browser(section) {
  const cards = JSON.parse(section.querySelector("script").textContent);
  const size = Number(section.dataset.perPage);
  const bar = make("div", { class: "bar" });
  const holder = make("div");
  const choices = {};
  const asked = new URLSearchParams(location.hash.slice(1)); // page.html#family=box opens with that choice
  let page = 0;
  const names = [...new Set(cards.flatMap((card) => Object.keys(card.tags)))];
  for (const name of names) {
    const values = [...new Set(cards.flatMap((card) => card.tags[name] || []))].sort();
    if (values.length < 2) continue;
    const select = make("select", {}, new Option("all", ""), ...values.map((value) => new Option(value, value)));
    if (values.includes(asked.get(name))) select.value = asked.get(name);
    select.addEventListener("change", () => { page = 0; render(); });
    choices[name] = select;
    bar.append(make("label", {}, name, select));
  }
  const count = make("span", { class: "count" });
  const back = make("button", { type: "button" }, "← back");
  const next = make("button", { type: "button" }, "next →");
  back.addEventListener("click", () => { page -= 1; render(true); });
  next.addEventListener("click", () => { page += 1; render(true); });
  bar.append(count, back, next);
  section.append(bar, holder);

  function render(moved = false) {
    const chosen = Object.entries(choices).filter(([, select]) => select.value);
    const fit = cards.filter((card) =>
      chosen.every(([name, select]) => (card.tags[name] || []).includes(select.value)));
    const pages = Math.max(1, Math.ceil(fit.length / size));
    const start = page * size;
    const wanted = choices.family ? choices.family.value : "";
    const seen = fit.slice(start, start + size);
    holder.className = seen.every((card) => !card.talk.length) ? "tiles" : "";
    holder.replaceChildren(...seen.map((card) => article(card, wanted)));
    const range = fit.length ? `${start + 1}–${start + seen.length} of ${fit.length}` : "none";
    count.textContent = range;
    back.disabled = page === 0;
    next.disabled = page + 1 >= pages;
    if (moved) section.scrollIntoView();
  }
  render();
}

document.querySelectorAll(".browser").forEach(browser);
