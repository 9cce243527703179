// An example is a button within a piece of HTML: tell Python which, and scroll to its caption.
element.addEventListener('click', (event) => {
  const sample = event.target.closest('button[data-sample]');
  if (!sample) return;
  trigger('select', { sample: Number(sample.dataset.sample) });
  document.getElementById('details').scrollIntoView({ block: 'nearest' });
});
document.getElementById('random')?.addEventListener('click', () =>
  document.getElementById('details').scrollIntoView({ block: 'nearest' }));
