"use strict";
(() => {
  const page = document.documentElement;
  const figures = [];
  const hidden = new Set(); // groups that no figure shows

  // A color var(--name) is that property of the page's style.
  const resolve = (value, key) => {
    if (Array.isArray(value)) return value.map((each) => resolve(each, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, k)]));
    }
    const named = /color$/.test(key) && /^var\((--\w+)\)$/.exec(value);
    return named ? getComputedStyle(page).getPropertyValue(named[1]).trim() : value;
  };

  const setByPath = (target, path, value) => {
    const names = path.split(".");
    const last = names.pop();
    let place = target;
    for (const name of names) place = place[name] ??= {};
    place[last] = value;
  };

  const run = (point) => point.data.meta?.run || point.customdata || "";

  const address = (path) => {
    const base = document.getElementById("mlflow").value.trim().replace(/\/+$/, "");
    return /^https?:\/\//.test(base) ? `${base}/${path}` : "";
  };

  const open = (point) => {
    const path = point && run(point);
    const target = path && address(path);
    if (target) window.open(target, "_blank", "noopener");
  };

  class Figure {
    constructor(element) {
      this.element = element;
      this.plot = element.querySelector(".plot");
      this.spec = JSON.parse(element.querySelector("script").textContent);
      this.options = this.spec.choices.map((choice) => choice.options[0]);
      this.visible = this.spec.traces.map((trace) => trace.visible ?? true);
      this.trace = 0; // of the keys
      this.point = -1;
      this.addButtons();
    }

    addButtons() {
      this.spec.choices.forEach((choice, index) => {
        const group = document.createElement("span");
        group.className = "choice";
        group.setAttribute("role", "group");
        group.setAttribute("aria-label", choice.title);
        group.append(`${choice.title}: `);
        for (const option of choice.options) {
          const button = document.createElement("button");
          button.type = "button";
          button.textContent = option.label;
          button.setAttribute("aria-pressed", String(option === this.options[index]));
          button.addEventListener("click", () => {
            this.options[index] = option;
            for (const each of group.querySelectorAll("button")) {
              each.setAttribute("aria-pressed", String(each === button));
            }
            if (option.caption) {
              this.element.querySelector(".said").textContent = option.caption;
            }
            this.draw();
          });
          group.append(button);
        }
        this.element.querySelector(".controls").append(group);
      });
    }

    traces() {
      const chosen = Object.assign({}, ...this.options);
      return this.spec.traces.map((trace, index) => {
        const drawn = resolve({ type: "scatter", ...trace }, "");
        const columns = trace.columns;
        if (columns) {
          drawn.x = columns.x[chosen.x];
          drawn.y = columns.y[chosen.y] ?? columns.y[chosen.x] ?? Object.values(columns.y)[0];
          delete drawn.columns;
        }
        if (trace.cells) {
          drawn.y = drawn.y.map((y, point) => (hidden.has(trace.cells[point]) ? null : y));
          delete drawn.cells;
        }
        // The legend of a figure makes a trace "legendonly"; false stands for a hidden group.
        const before = this.plot.data?.[index]?.visible ?? this.visible[index];
        drawn.visible = !hidden.has(trace.legendgroup) && (before || true);
        return drawn;
      });
    }

    layout() {
      const layout = resolve(structuredClone(this.spec.layout), "");
      for (const option of this.options) {
        for (const [path, value] of Object.entries(option.layout ?? {})) {
          setByPath(layout, path, value);
        }
      }
      return layout;
    }

    draw() {
      const config = {
        displaylogo: false,
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
        // By default, Plotly has a button that sends the figure's data to a server.
        plotlyServerURL: "",
        showSendToCloud: false,
      };
      const layout = { ...this.layout(), width: this.plot.clientWidth };
      return Plotly.react(this.plot, this.traces(), layout, config);
    }

    // Show the label of a point: of the trace `across` after the last one, `along` its points.
    move(across, along) {
      const shown = this.plot.data.flatMap((trace, curveNumber) => {
        if (trace.visible !== true || trace.hoverinfo === "skip") return [];
        const known = [...trace.y.keys()].filter((point) => trace.y[point] !== null);
        return known.length ? [known.map((pointNumber) => ({ curveNumber, pointNumber }))] : [];
      });
      if (!shown.length) return;
      const points = shown.at((this.trace + across) % shown.length);
      const last = Math.min(this.point, points.length - 1);
      const point = points.at((last + along) % points.length);
      this.trace = shown.indexOf(points);
      this.point = points.indexOf(point);
      const trace = this.plot.data[point.curveNumber];
      this.reached = { data: trace, customdata: trace.customdata?.[point.pointNumber] };
      Plotly.Fx.hover(this.plot, [point]);
    }

    press(event) {
      const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      const step = steps[event.key];
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "Enter") open(this.reached);
      if (step) {
        event.preventDefault(); // the page does not scroll
        this.move(...step);
      }
    }

    async start() {
      await this.draw();
      this.plot.on("plotly_click", (event) => open(event.points[0]));
      this.plot.addEventListener("keydown", (event) => this.press(event));
      this.plot.addEventListener("blur", () => Plotly.Fx.unhover(this.plot));
      for (const name of (this.element.dataset.instead ?? "").split(" ")) {
        document.getElementById(name)?.classList.add("replaced");
      }
      new ResizeObserver(() => {
        if (this.plot.clientWidth && this.plot.clientWidth !== this.plot.layout.width) this.draw();
      }).observe(this.plot);
    }
  }

  const startFilter = () => {
    const buttons = [...document.querySelectorAll(".filter [data-group]")];
    const show = (group, shown) => (shown ? hidden.delete(group) : hidden.add(group));
    const update = () => {
      for (const button of buttons) {
        button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.group)));
      }
      for (const figure of figures) figure.draw();
    };
    for (const button of buttons) {
      button.addEventListener("click", () => {
        show(button.dataset.group, hidden.has(button.dataset.group));
        update();
      });
    }
    for (const button of document.querySelectorAll(".filter [data-all]")) {
      button.addEventListener("click", () => {
        for (const each of buttons) show(each.dataset.group, button.dataset.all === "shown");
        update();
      });
    }
  };

  const addLinks = () => {
    for (const link of document.querySelectorAll("a[data-run]")) {
      const target = address(link.dataset.run);
      if (target) link.href = target;
      else link.removeAttribute("href");
    }
  };

  // The number at the beginning of a cell, with its decimal prefix: 1.2 T is 1.2e12.
  const prefixes = { "": 1, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 };
  const number = (text) => {
    const pattern = /^([-+−]?[\d,]*\.?\d+(?:e[-+]?\d+)?)\s?([mkMGTPE]?)(?:FLOP|tokens|s|%)?$/;
    const found = pattern.exec(text);
    if (!found) return NaN;
    return Number(found[1].replace(/,/g, "").replace("−", "-")) * prefixes[found[2] ?? ""];
  };

  const sortRows = (table, column, ascending) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [row.cells[column].textContent.trim(), row]);
    const known = rows.map(([text]) => text).filter((text) => text && text !== "–");
    const numeric = known.every((text) => !Number.isNaN(number(text)));
    const missing = (text) => (numeric ? Number.isNaN(number(text)) : !text || text === "–");
    rows.sort(([a], [b]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      const order = numeric ? number(a) - number(b) : a.localeCompare(b, "en");
      return ascending ? order : -order;
    });
    body.append(...rows.map(([, row]) => row));
  };

  const makeSortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const ascending = head.getAttribute("aria-sort") !== "ascending";
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        sortRows(table, column, ascending);
      });
    });
  };

  const loadPlotly = async () => {
    const packed = atob(document.getElementById("library").textContent);
    const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  };

  const start = async () => {
    document.querySelectorAll(".trials table, .sortable table").forEach(makeSortable);
    document.getElementById("mlflow").addEventListener("input", addLinks);
    addLinks();
    // A browser without this function keeps the static figures.
    if (!window.DecompressionStream) return;
    await loadPlotly();
    page.classList.add("scripted");
    startFilter();
    for (const element of document.querySelectorAll(".live")) {
      try {
        const figure = new Figure(element);
        await figure.start();
        figures.push(figure);
      } catch (error) {
        console.error(error);
        element.remove(); // the static figure stays
      }
    }
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => figures.forEach((figure) => figure.draw()));
  };
  start();
})();
