-- Sends each radiograph that arrives on to the bone age node. The results come back as SR and OT, and stay here.
function OnStoredInstance(instanceId, tags, metadata, origin)
  if tags['Modality'] == 'CR' or tags['Modality'] == 'DX' then
    SendToModality(instanceId, 'boneage')
  end
end
