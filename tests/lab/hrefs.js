// Where each link of the page leads, as the browser understands it: `a` and `area`, and what Outlook follows (VML, and
// documents under conditions), in the order of the document.
(() => {
  const found = [];
  const led = (value) => {
    try { return new URL(value, document.baseURI).href; } catch { return value; }
  };
  const walk = (root, shown) => {
    const nodes = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_COMMENT);
    for (let node = nodes.nextNode(); node; node = nodes.nextNode()) {
      if (node.nodeType === Node.COMMENT_NODE) {
        const inner = /^\[if[^\]]*\]>([^]*)<!\[endif\]$/i.exec(node.data);
        if (inner) walk(new DOMParser().parseFromString(inner[1], "text/html"), false);
      } else if (node.localName === "template") {
        walk(node.content, false);
      } else if (node.hasAttribute("href") && /^(a|area|v:.*)$/i.test(node.localName)) {
        const known = shown && typeof node.href === "string";
        found.push(known ? node.href : led(node.getAttribute("href")));
      }
    }
  };
  walk(document, true);
  return found;
})()
