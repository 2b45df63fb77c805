/*---------------------------------------------------------------------------*\
License
    Apache-2.0; see LICENSE. Links OpenFOAM (GPL-3.0-or-later) when it is built.
\*---------------------------------------------------------------------------*/

#include "penstockStream.H"
#include "volFields.H"

// * * * * * * * * * * * * * Private Member Functions  * * * * * * * * * * * //

template<class Type>
Foam::direction Foam::functionObjects::penstockStream::components
(
    const word& name
) const
{
    typedef GeometricField<Type, fvPatchField, volMesh> fieldType;

    return
    (
        mesh_.foundObject<fieldType>(name)
      ? direction(pTraits<Type>::nComponents)
      : direction(0)
    );
}


Foam::direction Foam::functionObjects::penstockStream::componentsOf
(
    const word& name
) const
{
    // A name belongs to one field, so that at most one term is not 0
    return
        components<scalar>(name)
      + components<vector>(name)
      + components<sphericalTensor>(name)
      + components<symmTensor>(name)
      + components<tensor>(name);
}


Foam::wordList Foam::functionObjects::penstockStream::available() const
{
    DynamicList<word> names;

    for (const word& name : mesh_.sortedNames())
    {
        if (componentsOf(name) && !name.endsWith("_0")) // not old time levels
        {
            names.append(name);
        }
    }

    return wordList(std::move(names));
}


template<class Type>
Foam::string Foam::functionObjects::penstockStream::sendField
(
    const label fieldi,
    bool& found
)
{
    typedef GeometricField<Type, fvPatchField, volMesh> fieldType;

    const fieldType* field = mesh_.findObject<fieldType>(fields_[fieldi]);

    if (!field)
    {
        return string();
    }
    found = true;

    const Field<Type>& values = field->primitiveField();
    const uint64_t n = pTraits<Type>::nComponents;

    static_assert
    (
        sizeof(Type) == pTraits<Type>::nComponents*sizeof(scalar),
        "components lie side by side"
    );

    return errorOf
    (
        penstock_send
        (
            stream_, size_t(fieldi), step_, time_.value(), scalarDtype,
            values.cdata(), n*uint64_t(firstCell_), n*uint64_t(values.size())
        )
    );
}


Foam::string Foam::functionObjects::penstockStream::sendFields()
{
    if (returnReduce(mesh_.nCells(), sumOp<label>()) != nCells_)
    {
        return
            "the mesh has " + Foam::name(returnReduce(mesh_.nCells(), sumOp<label>()))
          + " cells, it had " + Foam::name(nCells_) + " when the stream began: "
            "a mesh that is refined or whose cells come and go cannot be streamed";
    }

    forAll(fields_, fieldi)
    {
        bool found = false;
        string problem(sendField<scalar>(fieldi, found));

        if (!found)
        {
            problem = sendField<vector>(fieldi, found);
        }
        if (!found)
        {
            problem = sendField<sphericalTensor>(fieldi, found);
        }
        if (!found)
        {
            problem = sendField<symmTensor>(fieldi, found);
        }
        if (!found)
        {
            problem = sendField<tensor>(fieldi, found);
        }
        if (!found)
        {
            problem =
                "field " + fields_[fieldi] + " existed at the first time step "
                "but is gone now: stream fields that the solver keeps";
        }
        if (!problem.empty())
        {
            return problem;
        }
    }

    ++step_;
    return errorOf(penstock_step_sent(stream_));
}


// ************************************************************************* //
