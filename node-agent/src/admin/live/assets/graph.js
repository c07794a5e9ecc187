// Draws who talks to whom: clients on the left, servers on the right, a line for each way of talking. Beside it the page has the
// same as a table, which is what screen readers are given. Text is only ever put in as text.
"use strict";

const Graph = (() => {
  const NS = "http://www.w3.org/2000/svg";
  const MOST = 40, ROW = 46, TOP = 14, BOX = { width: 260, height: 34 }, WIDTH = 1100;

  const make = (name, attributes, text) => {
    const element = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // An identity without the words that all have in common.
  const label = (end) => {
    const parts = /^spiffe:\/\/([^/]+)\/ns\/([^/]+)\/sa\/(.+)$/.exec(end.identity);
    if (parts) return `${parts[2]}/${parts[3]}`;
    if (end.identity) return end.identity;
    return end.workload ? `${end.workload} (no identity)` : "outside of the mesh";
  };

  const shortened = (text) => (text.length > 34 ? `${text.slice(0, 33)}…` : text);

  // One line for what is carried, one for what is refused: an edge of each kind between two identities.
  const lines = (edges) => {
    const found = new Map();
    const add = (edge, kind, amount, isNow) => {
      const [from, to] = [label(edge.from), label(edge.to)];
      const key = JSON.stringify([from, to, kind]);
      const line = found.get(key) || { from, to, kind, amount: 0, isNow: false };
      line.amount += amount;
      line.isNow ||= isNow;
      found.set(key, line);
    };
    for (const edge of edges) {
      const rates = edge.rates || { opened: 0, failed: 0, toServer: 0, toClient: 0 };
      const isBusy = edge.open > 0 || rates.toServer + rates.toClient > 0 || rates.opened > rates.failed;
      if (edge.open > 0 || edge.opened > edge.failed) add(edge, edge.mutualTls ? "mtls" : "plain", edge.open, isBusy);
      if (edge.failed > 0) add(edge, "refused", edge.failed, rates.failed > 0);
    }
    return [...found.values()].slice(0, MOST);
  };

  // The boxes of one side; returns where each of the lines ends there, beside one another.
  const column = (lines, side, x, svg) => {
    const names = [...new Set(lines.map((line) => line[side]))].sort();
    const ends = new Map();
    names.forEach((name, index) => {
      const y = TOP + index * ROW;
      svg.append(make("rect", { x, y, width: BOX.width, height: BOX.height, rx: 6 }));
      const text = make("text", { x: x + BOX.width / 2, y: y + BOX.height / 2 + 5, "text-anchor": "middle" }, shortened(name));
      text.append(make("title", {}, name));
      svg.append(text);
      const own = lines.filter((line) => line[side] === name);
      own.forEach((line, place) => ends.set(line, y + (BOX.height * (place + 1)) / (own.length + 1)));
    });
    return { count: names.length, ends };
  };

  const words = { mtls: "open", plain: "open", refused: "refused or failed" };

  const draw = (edges) => {
    const shown = lines(edges);
    if (shown.length === 0) return null;
    const svg = make("svg", { width: WIDTH, role: "img" });
    const [left, right] = [column(shown, "from", 2, svg), column(shown, "to", WIDTH - BOX.width - 2, svg)];
    const height = TOP * 2 + Math.max(left.count, right.count) * ROW;
    const bad = shown.filter((line) => line.kind === "refused").length;
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
    svg.setAttribute("height", String(height));
    svg.setAttribute("aria-label", `Clients: ${left.count}; servers: ${right.count}; lines between them: ${shown.length}, of which refused or failed: ${bad}. The table below has each.`);
    const [x0, x1] = [BOX.width + 4, WIDTH - BOX.width - 4];
    for (const line of shown) {
      const [y0, y1] = [left.ends.get(line), right.ends.get(line)];
      const third = (x1 - x0) / 3;
      const idle = line.isNow ? "" : " idle";
      svg.append(make("path", { class: `${line.kind}${idle}`, d: `M${x0} ${y0} C${x0 + third} ${y0} ${x1 - third} ${y1} ${x1} ${y1}` }));
      // Each kind has its own place on its line, so that no two are written over one another.
      const at = { mtls: 0.3, plain: 0.4, refused: 0.62 }[line.kind];
      const eased = at * at * (3 - 2 * at);
      const sign = line.kind === "refused" ? "✕ " : "";
      svg.append(make("text", { class: `amount ${line.kind === "refused" ? "refused" : ""}${idle}`, x: x0 + (x1 - x0) * at, y: y0 + (y1 - y0) * eased + 4, "text-anchor": "middle" },
        `${sign}${line.amount} ${words[line.kind]}`));
    }
    return svg;
  };

  return { draw, label };
})();
