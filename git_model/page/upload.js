// A file that is chosen, dropped or pasted is sent to the page's own upload address. The answer is a
// token; the event with this token makes the server read the file.
const input = element.querySelector('input');
const zone = document.getElementById('columns');
const notice = element.querySelector('.notice');

const show = (text) => {
  notice.textContent = text;
  notice.hidden = !text;
  if (text) notice.scrollIntoView({ block: 'nearest' });
};

const send = async (file) => {
  if (!file || zone.ariaBusy === 'true') return;
  const maxBytes = Number(input.dataset.maxBytes);
  if (file.size > maxBytes) {
    show(`The file is larger than ${maxBytes / 2 ** 20} MB.`);
    return;
  }
  show('');
  zone.ariaBusy = 'true';
  try {
    const response = await fetch('upload', { method: 'POST', body: file });
    const text = (await response.text()).trim();
    if (response.ok) {
      trigger('upload', { token: text, name: [...file.name].slice(0, 60).join('') });
      document.getElementById('details').scrollIntoView({ block: 'nearest' });
    } else show(text);
  } catch {
    show('The file could not be sent: it is a folder, it has changed, or the page’s server has ended.');
  }
  zone.ariaBusy = 'false';
  input.value = '';
};

const handleDrag = (event) => {
  if (!event.dataTransfer.types.includes('Files')) return;
  event.preventDefault();
  zone.classList.toggle('over', event.type === 'dragover');
  if (event.type === 'drop') send(event.dataTransfer.files[0]);
};

input.addEventListener('change', () => send(input.files[0]));
// A file may be dropped anywhere: elsewhere the browser would leave the page to open it.
for (const name of ['dragover', 'dragleave', 'drop']) document.addEventListener(name, handleDrag);
document.addEventListener('paste', (event) => {
  const file = event.clipboardData.files[0];
  if (!file || !element.isConnected) return;
  event.preventDefault();
  send(file);
});
// The next action that succeeds removes the error of the last file, as Python removes its own.
// Gradio may replace a result's whole element, so the page is observed, not the element.
const results = '#image, #caption, #answers, #bars';
const isResult = ({ target, addedNodes }) =>
  target.closest?.(results) || [...addedNodes].some((node) => node.matches?.(results));
const observer = new MutationObserver((records) => records.some(isResult) && show(''));
observer.observe(document.body, { childList: true, subtree: true });
