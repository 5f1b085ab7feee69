// What a page lacks for those who do not see it, or use no mouse: a list of findings, none if good.
const lacks = [];
const named = element =>
  (element.getAttribute("aria-label") || element.textContent || "").trim() !== "" ||
  (element.labels?.length > 0);
if (!document.documentElement.lang) lacks.push("no lang");
if (!document.title.trim()) lacks.push("no title");
for (const part of document.querySelectorAll("details")) part.open = true;
for (const control of document.querySelectorAll("button, a[href], select, input, summary"))
  if (!named(control)) lacks.push(`no name: ${control.outerHTML.slice(0, 80)}`);
for (const picture of document.querySelectorAll("img"))
  if (!picture.alt.trim()) lacks.push("a picture without alt");
for (const picture of document.querySelectorAll("svg"))
  if (picture.getAttribute("role") !== "img" || !named(picture)) lacks.push("a drawing without a name");
let level = 0;
for (const head of document.querySelectorAll("h1, h2, h3, h4")) {
  const now = Number(head.tagName[1]);
  if (now > level + 1) lacks.push(`h${now} after h${level}: ${head.textContent}`);
  level = now;
}
for (const table of document.querySelectorAll("table")) {
  if (!table.caption?.textContent.trim()) lacks.push("a table without a caption");
  for (const head of table.querySelectorAll("th")) if (!head.scope) lacks.push("a th without scope");
}
for (const frame of document.querySelectorAll("*"))
  if (/auto|scroll/.test(getComputedStyle(frame).overflowX) && frame.tabIndex < 0)
    lacks.push(`cannot be scrolled by keys: ${frame.className}`);
const ids = [...document.querySelectorAll("[id]")].map(element => element.id);
for (const id of new Set(ids)) if (ids.filter(each => each === id).length > 1) lacks.push(`twice: ${id}`);
// WCAG 2.1: contrast is of relative luminances, at least 4.5 for text.
const channels = colour => colour.match(/[\d.]+/g).map(Number);
const luminance = colour => {
  const [r, g, b] = channels(colour).map(v => v / 255).map(v =>
    v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => {
  for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if ((channels(colour)[3] ?? 1) > 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
const texts = new Set();
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || element.closest("script, style")) continue;
  const style = getComputedStyle(element);
  texts.add([element instanceof SVGElement ? style.fill : style.color, behind(element)].join("|"));
}
for (const pair of texts) {
  const [a, b] = pair.split("|").map(luminance).sort((x, y) => y - x);
  const contrast = (a + 0.05) / (b + 0.05);
  if (contrast < 4.5) lacks.push(`contrast ${contrast.toFixed(2)}: ${pair}`);
}
if (texts.size < 3) lacks.push("no texts were looked at");
return lacks;
