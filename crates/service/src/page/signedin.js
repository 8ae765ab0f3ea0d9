// Back from signing in elsewhere: the key that came with this page is this tab's.

import { key } from "./api.js";

key.set(document.querySelector("[data-key]").dataset.key);
location.replace("/");
