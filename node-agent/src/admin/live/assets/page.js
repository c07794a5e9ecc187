// Shows the states that the agent tells. Text of the mesh is only ever put in as text; rows are changed in place, so that neither
// focus nor selection is lost; and screen readers hear of what has changed, not of every state.
"use strict";

(() => {
  const $ = (id) => document.getElementById(id);
  const SILENCE = 30000, AGAIN = 5000;
  let source = null, state = null, paused = false, heard = 0, retry = 0;

  // ---- Words

  const number = (count) => count.toLocaleString("en", { maximumFractionDigits: 0 });
  const rate = (value) => (value === undefined ? "–" : value.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 }));
  const bytes = (value) => {
    if (value === undefined) return "–";
    let rest = value;
    for (const unit of ["B", "KiB", "MiB"]) {
      if (rest < 1024) return `${rate(rest)} ${unit}`;
      rest /= 1024;
    }
    return `${rate(rest)} GiB`;
  };
  const clock = (at) => at.slice(11, 19);
  const days = (seconds) => {
    const left = seconds / 86400;
    return left >= 10 || left <= -10 ? number(left) : rate(left);
  };
  const plural = (count, one) => `${number(count)} ${one}${count === 1 ? "" : "s"}`;

  // ---- Elements

  const put = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  const mark = (element, names) => {
    if (element.className !== names) element.className = names;
  };
  const say = (id, text, tone) => {
    put($(id), text);
    mark($(id), tone || "");
  };

  const isFiltered = () => $("filter").value.trim() !== "";

  // A cell is a text, or {text, sub, tone, number}.
  const fill = (cell, wanted) => {
    const { text, sub, tone, isNumber } = typeof wanted === "string" ? { text: wanted } : wanted;
    if (cell.childNodes.length === 0) cell.append(document.createElement("span"), document.createElement("span"));
    const [first, second] = cell.childNodes;
    put(first, text);
    mark(first, tone || "");
    put(second, sub || "");
    mark(second, sub ? "sub" : "");
    mark(cell, isNumber ? "number" : "");
  };

  // Rows are {key, cells, tone}; the first cell is the row's head.
  const table = (id, rows, empty) => {
    const body = $(id).tBodies[0];
    const old = new Map([...body.rows].map((row) => [row.dataset.key, row]));
    const width = $(id).tHead.rows[0].cells.length;
    rows.forEach((wanted, index) => {
      let row = old.get(wanted.key);
      old.delete(wanted.key);
      if (!row) {
        row = document.createElement("tr");
        row.dataset.key = wanted.key;
        wanted.cells.forEach((_, column) => {
          const cell = document.createElement(column === 0 ? "th" : "td");
          if (column === 0) cell.scope = "row";
          row.append(cell);
        });
      }
      wanted.cells.forEach((cell, column) => fill(row.cells[column], cell));
      mark(row, wanted.tone || "");
      if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] || null);
    });
    old.forEach((row) => row.remove());
    if (rows.length === 0) {
      const row = body.insertRow();
      const cell = row.insertCell();
      cell.colSpan = width;
      cell.className = "empty";
      cell.textContent = isFiltered() ? "Nothing matches the filter." : empty;
    }
  };

  const more = (id, count) => put($(id), count > 0 ? `${number(count)} more are not shown.` : "");

  // ---- Sections

  const overview = (now) => {
    const { source: from, connections: all, podCounts: [enrolled, degraded, pending] } = now;
    put($("node"), now.node);
    document.title = now.node ? `${now.node} – Culvert` : "Culvert";
    const waits = now.pending.length > 0 ? `; not ready, waits for ${now.pending.join(", ")}` : "; ready";
    say("agent", `${now.version}, process ${now.process}${waits}`, now.pending.length > 0 ? "warn" : "");
    const rejected = from.rejected > 0 ? `; ${number(from.rejected)} rejected` : "";
    if (from.kind === "file") {
      say("source", `none; the mesh is a file${rejected}`, rejected ? "warn" : "");
    } else {
      const last = from.updated ? `, last word ${from.updated.slice(0, 10)} ${clock(from.updated)} UTC` : ", nothing heard yet";
      const word = from.connected ? "connected" : "not connected; what is known stays in force";
      say("source", `${word}${last}${rejected}`, from.connected ? (rejected ? "warn" : "good") : "bad");
    }
    say("mesh", `${plural(from.workloads, "workload")}, ${plural(from.services, "service")}, ${from.policies === 1 ? "1 policy" : `${number(from.policies)} policies`}`);
    say("pod-counts", `${number(enrolled)} enrolled, ${number(degraded)} degraded, ${number(pending)} pending`, degraded > 0 ? "bad" : pending > 0 ? "warn" : "good");
    const rates = all.rates || {};
    say("open", number(all.open));
    say("opened", `${rate(rates.opened)}/s; ${number(all.opened)} so far`);
    const away = now.turnedAway > 0 ? `; ${number(now.turnedAway)} not taken on` : "";
    say("failed", `${rate(rates.failed)}/s; ${number(all.failed)} so far, ${number(all.denied)} of them by policy${away}`, all.failed + now.turnedAway > 0 ? "bad" : "");
    say("bytes", `${bytes(rates.toServer)}/s to servers, ${bytes(rates.toClient)}/s to clients`);
    const ends = now.certificates.rows.map((row) => row.secondsLeft).filter((left) => left !== undefined);
    const first = Math.min(...ends);
    say("first-end", ends.length === 0 ? "no certificates" : `in ${days(first)} days`, ends.length > 0 && first < 3600 ? "bad" : "");
  };

  const matches = (...texts) => {
    const wanted = $("filter").value.trim().toLowerCase();
    return wanted === "" || texts.some((text) => (text || "").toLowerCase().includes(wanted));
  };

  const end = (side) => ({ text: side.workload || "outside of the mesh", sub: side.identity || "no identity" });
  const figure = (text) => ({ text, isNumber: true });

  const edges = (now) => {
    const shown = now.connections.edges.filter((edge) => matches(edge.from.workload, edge.from.identity, edge.to.workload, edge.to.identity));
    const drawing = Graph.draw(shown);
    $("drawing").replaceChildren(...(drawing ? [drawing] : []));
    table("edges", shown.map((edge) => {
      const { from, to, rates = {} } = edge;
      const others = edge.failed - edge.denied;
      const words = [edge.denied > 0 ? `${number(edge.denied)} refused by policy` : "", others > 0 ? `${number(others)} failed` : ""].filter((word) => word !== "");
      const now_ = rates.failed > 0 ? ` (${rate(rates.failed)}/s)` : "";
      return {
        key: JSON.stringify([from, to, edge.mutualTls]),
        tone: edge.failed > 0 ? "refused" : "",
        cells: [
          end(from), end(to),
          edge.mutualTls ? { text: "mutual TLS", tone: "good" } : { text: "plaintext", tone: "warn" },
          figure(number(edge.open)), figure(number(edge.opened)), figure(rate(rates.opened)), figure(bytes(rates.toServer)), figure(bytes(rates.toClient)),
          words.length > 0 ? { text: `✕ ${words.join(", ")}${now_}`, tone: "bad" } : "none",
        ],
      };
    }), "No connections so far.");
    more("edges-more", now.connections.leftOut);
  };

  // What a line of the log says, by the names of its fields.
  const fields = (text) => {
    const found = {};
    for (const [, name, quoted, plain] of text.matchAll(/ ([a-z_.]+)=(?:"((?:[^"\\]|\\.)*)"|(\S+))/g)) {
      found[name] = quoted === undefined ? plain : quoted.replace(/\\(.)/g, "$1");
    }
    return found;
  };

  const refusals = (now) => {
    const rows = now.refusals.map((event) => {
      const said = fields(event.text);
      const side = (name) => {
        const workload = said[`${name}.workload`];
        return { text: workload ? `${said[`${name}.namespace`]}/${workload}` : said[`${name}.addr`] || "–", sub: workload ? said[`${name}.addr`] : "" };
      };
      return { key: String(event.number), cells: [clock(event.time), side("src"), side("dst"), { text: said.error || event.text, tone: "bad" }] };
    });
    table("events", rows.filter((row) => matches(...row.cells.map((cell) => cell.text || cell))), "None that is still known.");
  };

  const TONES = { enrolled: "good", degraded: "bad", pending: "warn", valid: "good", expired: "bad", unavailable: "bad", early: "warn" };

  const pods = (now) => {
    const shown = now.pods.rows.filter((pod) => matches(pod.pod, pod.identity, pod.state));
    table("pod-table", shown.map((pod) => ({
      key: pod.pod,
      cells: [
        pod.pod, { text: pod.state, tone: TONES[pod.state] }, pod.identity || "not known yet", pod.addresses.join(", "),
        figure(number(pod.inbound)), figure(number(pod.outbound)), pod.why || "",
      ],
    })), "No pods.");
    more("pods-more", now.pods.leftOut);
  };

  const certificates = (now) => {
    const shown = now.certificates.rows.filter((row) => matches(row.identity, row.state));
    table("certificate-table", shown.map((row) => ({
      key: row.identity,
      cells: [
        row.identity, { text: row.state, tone: TONES[row.state], sub: row.why },
        { text: row.secondsLeft === undefined ? "–" : days(row.secondsLeft), tone: row.secondsLeft < 3600 ? "bad" : "", isNumber: true },
        row.expires ? `${row.expires.slice(0, 10)} ${clock(row.expires)} UTC` : "–", row.issuer || "–",
      ],
    })), "No certificates.");
    more("certificates-more", now.certificates.leftOut);
  };

  // ---- What is said aloud

  const news = (before, now) => {
    if (!before || before.process !== now.process) return;
    const told = [];
    const states = (of) => new Map(of.pods.rows.map((pod) => [pod.pod, pod.state]));
    const [old, current] = [states(before), states(now)];
    for (const [pod, is] of current) if (old.get(pod) !== is) told.push(`${pod} is ${is}`);
    for (const pod of old.keys()) if (!current.has(pod)) told.push(`${pod} is gone`);
    const failed = now.connections.failed - before.connections.failed;
    if (failed > 0) told.push(`${plural(failed, "connection")} refused or failed`);
    if (told.length > 0) put($("news"), told.slice(0, 5).join("; "));
  };

  const show = (now) => {
    overview(now);
    edges(now);
    refusals(now);
    pods(now);
    certificates(now);
  };

  // ---- The stream

  const tell = (how, text) => {
    $("stream").dataset.state = how;
    put($("stream"), text);
    $("content").classList.toggle("stale", how === "lost");
  };

  const close = () => {
    clearTimeout(retry);
    if (source) source.close();
    source = null;
  };

  const lost = () => {
    const since = state ? `; shown is ${clock(state.at)} UTC` : "";
    tell("lost", `The agent is away, or too many watch; trying again${since}`);
  };

  const open = () => {
    close();
    heard = Date.now();
    source = new EventSource("/ui/events");
    source.addEventListener("state", (event) => {
      const now = JSON.parse(event.data);
      heard = Date.now();
      news(state, now);
      state = now;
      show(now);
      tell("on", "Live");
    });
    source.addEventListener("error", () => {
      lost();
      // A browser comes again by itself unless it was refused.
      if (source && source.readyState === EventSource.CLOSED) {
        clearTimeout(retry);
        retry = setTimeout(open, AGAIN * (1 + Math.random()));
      }
    });
  };

  const wanted = () => !paused && !document.hidden;

  const follow = () => {
    if (wanted()) {
      open();
      return;
    }
    close();
    tell("off", state ? `Paused at ${clock(state.at)} UTC` : "Paused");
  };

  $("pause").addEventListener("click", () => {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    follow();
  });
  $("filter").addEventListener("input", () => {
    if (state) show(state);
  });
  // A page that nobody sees costs the agent nothing.
  document.addEventListener("visibilitychange", follow);
  setInterval(() => {
    if (wanted() && source && Date.now() - heard > SILENCE) {
      lost();
      open();
    }
  }, 5000);
  follow();
})();
