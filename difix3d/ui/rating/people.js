// Who rates: the guide and the consent before the first vote; a pseudonym; everything taken back when they ask for it.
function makePeople(root, post, hooks) {
  const guide = root.querySelector(".dx-guide"), you = root.querySelector(".dx-you");
  const name = guide.querySelector("input");
  let me = null, page = "", sure = false;

  function draw() {
    guide.hidden = page !== "guide";
    you.hidden = page !== "you";
    if (!me) return;
    guide.querySelector(".dx-consent").hidden = me.agreed;
    guide.querySelector("[data-back]").hidden = !me.agreed;
    for (const place of root.querySelectorAll("[data-licence]")) place.textContent = me.licence;
    for (const place of root.querySelectorAll("[data-version]")) place.textContent = me.version;
    for (const place of root.querySelectorAll(".dx-login")) {
      place.hidden = !me.login;
      place.href = me.login?.url ?? "";
      place.textContent = me.login?.user ? `Logged in as ${me.login.user}. Log out` : "Log in with Hugging Face";
    }
    root.querySelector("[data-you] span").textContent = me.name || "anonymous";
    you.querySelector(".dx-known").textContent = me.name
      ? `You rate as “${me.name}”. ${counted(me.votes)}`
      : `You rate without a name. ${counted(me.votes)}`;
    you.querySelector("[data-withdraw]").textContent = sure ? "Yes, delete all of it" : "Withdraw and delete";
    hooks.draw();
  }
  const counted = (votes) => (votes === 1 ? "1 vote of yours counts." : `${votes} votes of yours count.`);
  function open(which) {
    page = which;
    sure = false;
    // A field that is hidden keeps the focus for a moment, and would take the next key.
    if (root.contains(document.activeElement)) document.activeElement.blur();
    tell("");
    draw();
    const part = which === "guide" ? guide : you;
    if (which && root.offsetParent) part.querySelector(which === "you" ? "input" : "[data-agree], [data-back]")?.focus?.({ preventScroll: true });
    if (which === "you" && me) { you.querySelector("input").value = me.name; send("me", {}); }
  }
  function tell(words) { for (const place of root.querySelectorAll(".dx-told")) place.textContent = words; }
  async function send(action, body) {
    const answer = await post(action, body);
    if (answer.ok) { me = answer.me; tell(""); } else tell(answer.error);
    draw();
    return answer.ok;
  }
  async function agree() {
    if (await send("agree", { version: me.version, licence: me.licence, name: name.value })) { open(""); hooks.agreed(); }
  }
  async function read() {
    const answer = await post("me", {});
    if (!answer.ok) { setTimeout(read, 4000); return; }
    me = answer.me;
    name.value = me.name;
    if (!me.agreed) open("guide");
    else if (page === "guide") draw();
    draw();
    if (me.agreed) hooks.agreed();
  }
  const press = (selector, act) => { for (const button of root.querySelectorAll(selector)) button.addEventListener("click", act); };
  press("[data-agree]", agree);
  press("[data-back]", () => open(""));
  press("[data-guide]", () => open(page === "guide" ? "" : "guide"));
  press("[data-you]", () => open(page === "you" ? "" : "you"));
  press("[data-rename]", async () => {
    if (await send("agree", { version: me.version, licence: me.licence, name: you.querySelector("input").value })) tell("Saved.");
  });
  press("[data-withdraw]", async () => {
    if (!sure) { sure = true; tell("Your votes, tags, scores, marks, comments and your name are deleted here for good."); draw(); return; }
    sure = false;
    if (await send("withdraw", {})) { open("guide"); tell("Deleted. Datasets that were written or published before keep what was in them."); hooks.withdrawn(); }
  });
  for (const field of [name, you.querySelector("input")]) field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") (field === name ? agree() : you.querySelector("[data-rename]").click());
  });

  return {
    read,
    get ready() { return Boolean(me?.agreed); },
    get page() { return page; },
    // The server wants to know whether this person agrees.
    ask() { if (me) { me = { ...me, agreed: false }; open("guide"); } },
    close() { if (page === "you" || me?.agreed) open(""); },
  };
}
